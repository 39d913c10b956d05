"""The Step behind an interactive terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from opsexec.capability import Requirement, clean_path, plain_argv
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.argv import checked_argv
from opsexec.steps.base import Step
from opsexec.steps.environment import environment_needs

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z")
"""A path here would choose the terminal description that programs load."""


class Tty(Step, frozen=True, tag="tty"):
    """Run a program on a terminal of `columns` x `rows` characters."""

    family = "tty"

    argv: Sequence[str]
    env: Mapping[str, str | Secret] = {}
    cwd: str | None = None
    term: str = "xterm-256color"
    columns: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        msgspec.structs.force_setattr(self, "argv", checked_argv(self.argv))
        if self.cwd is not None:
            clean_path(self.cwd)
        if not _TERM.match(self.term):
            raise BadStep(f"term {self.term[:40]!r} is not a terminal's name", hint="like xterm-256color")
        if not (0 < self.columns < 10_000 and 0 < self.rows < 10_000):
            raise BadStep("the terminal's size is out of range")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("tty", plain_argv(self.argv)), *environment_needs(self.env))
