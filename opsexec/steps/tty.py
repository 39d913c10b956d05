"""The Step behind an interactive terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from opsexec.capability import Requirement, clean_path, program_candidates
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.base import Step, environment_needs


class Tty(Step, frozen=True, tag="tty"):
    """Run a program on a terminal of `columns` x `rows` characters."""

    family = "tty"

    argv: Sequence[str]
    env: dict[str, str | Secret] = {}
    cwd: str | None = None
    term: str = "xterm-256color"
    columns: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.argv, str):
            raise BadStep("argv is one string", hint="give a list of words")
        msgspec.structs.force_setattr(self, "argv", tuple(self.argv))
        if not self.argv or any("\0" in word for word in self.argv):
            raise BadStep("argv is empty or holds NUL", hint="name a program, like /bin/bash -l")
        program_candidates(self.argv[0])
        if self.cwd is not None:
            clean_path(self.cwd)
        if not (0 < self.columns < 10_000 and 0 < self.rows < 10_000):
            raise BadStep("the terminal's size is out of range")

    def requires(self) -> tuple[Requirement, ...]:
        argv = (clean_path(self.argv[0]), *self.argv[1:]) if self.argv[0].startswith("/") else self.argv
        return (Requirement("tty", tuple(argv)), *environment_needs(self.env))
