"""`SecretSource`: where a secret variable comes from (`{from_env: NAME}`, `{prompt: "text"}`); reading it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from opsexec.errors import UsageError
from opsexec.secret import Secret

Ask = Callable[[str], str]
"""Asks a person for a secret text without echoing it."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class SecretSource(msgspec.Struct, frozen=True):
    """A promise of a Secret: read from the caller's environment, or asked of the person at the terminal."""

    from_env: str | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if (self.from_env is None) == (self.prompt is None):
            raise UsageError("a secret needs exactly one of from_env and prompt", hint="{from_env: NAME}")
        if self.from_env is not None and not _ENV_NAME.match(self.from_env):
            raise UsageError(f"from_env {self.from_env[:40]!r} is not a variable's name", hint="letters, digits and _")
        if self.prompt is not None and not (self.prompt.strip() and self.prompt.isprintable()):
            raise UsageError("the prompt is empty or not printable", hint="say what is asked for")

    def read(self, environ: Mapping[str, str] | None = None, ask: Ask | None = None) -> Secret:
        """Return the Secret; raises UsageError when the variable isn't set or nobody can be asked."""
        if self.from_env is not None:
            value = (os.environ if environ is None else environ).get(self.from_env)
            if value is None:
                raise UsageError(
                    f"the environment variable {self.from_env} is not set", hint="export it, then run again"
                )
            return Secret(value)
        assert self.prompt is not None
        return Secret((ask or ask_terminal)(self.prompt))


def secret_source(value: Mapping[str, Any]) -> SecretSource | None:
    """Return the source a variable's map stands for, or None when it is an ordinary map."""
    if set(value) not in ({"from_env"}, {"prompt"}):
        return None
    ((key, text),) = value.items()
    if not isinstance(text, str):
        raise UsageError(f"{key} takes text", hint="quote it")
    return SecretSource(**{key: text})


def ask_terminal(prompt: str) -> str:
    """Ask on the terminal without echo; raises UsageError when there is none."""
    import getpass

    if not sys.stdin.isatty():
        raise UsageError(f"can't ask {prompt!r}: standard input is not a terminal", hint="use from_env, or --var")
    return getpass.getpass(prompt if prompt.endswith((" ", ":")) else f"{prompt}: ")
