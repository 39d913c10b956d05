"""Steps that run a program: `Exec` (an argv, no shell anywhere) and `Shell` (a script under a named action)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal, cast

import msgspec

from opsexec.capability import Requirement, clean_path, program_candidates
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.base import Step, environment_needs

_ACTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")
MAX_ARGV_BYTES = 1 << 20
MAX_WORD_BYTES = 128 * 1024 - 1
"""The longest word execve(2) takes (MAX_ARG_STRLEN); a script is one word of its interpreter's argv."""


class Process(Step, frozen=True, kw_only=True):
    """The fields both kinds share.

    `env` is added to a minimal environment. `cwd` is absolute. `stdin` is given whole (stream it with `run(stdin=)`).
    `creates`: skip the step when this path exists.
    """

    family = "process"

    env: dict[str, str | Secret] = {}
    cwd: str | None = None
    stdin: str | Secret | None = None
    creates: str | None = None

    def _shared_needs(self) -> tuple[Requirement, ...]:
        creates = (Requirement("fs.read", clean_path(self.creates)),) if self.creates is not None else ()
        return (*environment_needs(self.env), *creates)


class Exec(Process, frozen=True, tag="exec"):
    """Run one program with exactly these arguments; argv[0] is a bare name or an absolute path."""

    argv: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.argv, str):
            raise BadStep("argv is one string", hint="give a list of words, or use Shell")
        msgspec.structs.force_setattr(self, "argv", tuple(self.argv))
        if not self.argv:
            raise BadStep("argv is empty", hint="name a program")
        for word in cast("tuple[object, ...]", self.argv):
            if isinstance(word, Secret):
                raise BadStep(
                    "a Secret stands on an argv, where every user of the host can read it", hint="use env or stdin"
                )
            if not isinstance(word, str) or "\0" in word:
                raise BadStep(f"argv holds {word!r}, which is not a word", hint="words are text without NUL")
        sizes = [len(word.encode("utf-8", "surrogateescape")) for word in self.argv]
        if sum(sizes) > MAX_ARGV_BYTES or max(sizes) > MAX_WORD_BYTES:
            raise BadStep("argv is over 1 MiB, or a word over 128 KiB", hint="pass the data on stdin or in a file")
        program_candidates(self.argv[0])
        if self.cwd is not None:
            clean_path(self.cwd)

    def requires(self) -> tuple[Requirement, ...]:
        argv = tuple(self.argv)
        if argv[0].startswith("/"):
            argv = (clean_path(argv[0]), *argv[1:])
        return (Requirement("exec", argv), *self._shared_needs())


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
        if not _ACTION.match(self.action):
            raise BadStep(f"action {self.action[:60]!r} is not a name", hint="letters, digits and _.:-")
        if "\0" in self.script or len(self.script.encode()) > MAX_WORD_BYTES:
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
        return hashlib.sha256(self.script.encode()).hexdigest()

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("shell", f"{self.action}@sha256:{self.digest}"), *self._shared_needs())
