"""Steps that run a program: `Exec` (an argv, no shell anywhere) and `Shell` (a script under a named action)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from opsexec.capability import Requirement, clean_path, plain_argv
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.argv import MAX_WORD_BYTES, checked_argv
from opsexec.steps.base import Step
from opsexec.steps.environment import environment_needs
from opsexec.steps.text import as_bytes

_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")


class Process(Step, frozen=True, kw_only=True):
    """The fields both kinds share.

    `env` is added to a minimal environment. `cwd` is absolute. `stdin` is given whole (stream it with `run(stdin=)`).
    `creates`: skip the step when this path exists.
    """

    family = "process"

    env: Mapping[str, str | Secret] = {}
    cwd: str | None = None
    stdin: str | Secret | None = None
    creates: str | None = None

    def _shared_needs(self) -> tuple[Requirement, ...]:
        if self.stdin is not None and not isinstance(self.stdin, (str, Secret)):
            raise BadStep("stdin is no text", hint="bytes are streamed: run(step, stdin=...)")
        creates = (Requirement("fs.read", clean_path(self.creates)),) if self.creates is not None else ()
        return (*environment_needs(self.env), *creates)


class Exec(Process, frozen=True, tag="exec"):
    """Run one program with exactly these arguments; argv[0] is a bare name or an absolute path."""

    argv: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "argv", checked_argv(self.argv))
        if self.cwd is not None:
            clean_path(self.cwd)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("exec", plain_argv(self.argv)), *self._shared_needs())


class Shell(Process, frozen=True, tag="shell"):
    """Run a script as a named action; needs `shell:<action>`, which a grant may pin to the script's sha256.

    `sha256`, when given, must be the script's own: a runbook that was edited by mistake is refused before it runs.
    """

    action: str
    script: str
    sha256: str | None = None
    interpreter: Literal["/bin/sh", "/bin/bash"] = "/bin/sh"

    def __post_init__(self) -> None:
        super().__post_init__()
        texts: tuple[object, object] = (self.action, self.script)
        if not all(isinstance(text, str) for text in texts):
            raise BadStep("the action or the script is no text", hint='like Shell("app.restart", "systemctl ...")')
        if not _ACTION.match(self.action):
            raise BadStep(f"action {self.action[:60]!r} is not a name", hint="letters, digits and _.:-")
        if "\0" in self.script or len(as_bytes(self.script)) > MAX_WORD_BYTES:
            raise BadStep("the script holds a NUL byte or is over 128 KiB", hint="write it to a file and run that")
        if self.sha256 is not None and self.sha256 != self.digest:
            raise BadStep(
                f"the script of {self.action} has sha256 {self.digest}, not {self.sha256}",
                hint="review the change, then pin it",
            )
        if self.cwd is not None:
            clean_path(self.cwd)

    @property
    def digest(self) -> str:
        """The script's sha256 as lower-case hex."""
        return hashlib.sha256(as_bytes(self.script)).hexdigest()

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("shell", f"{self.action}@sha256:{self.digest}"), *self._shared_needs())
