"""What every Step has: the user it runs as, its deadline, and the requirements derived from its fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import msgspec

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.text import require_text

if TYPE_CHECKING:
    from opsexec.steps.process import Shell

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
_SERVICE = re.compile(r"[A-Za-z0-9_:.@\\][A-Za-z0-9_:.@\\-]{0,254}\Z")


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True):
    """One typed piece of work on one host.

    `run_as`: the user it runs as, None = the login. `timeout_s`: its deadline in seconds, None = the set's limit.
    """

    family: ClassVar[str] = ""
    mutates: ClassVar[bool] = True

    run_as: str | None = None
    timeout_s: float | None = None

    def requires(self) -> tuple[Requirement, ...]:
        """Return what this Step needs, derived from its fields. An empty answer is refused by every executor."""
        return ()

    def __post_init__(self) -> None:
        if self.run_as is not None and not is_user_name(str(self.run_as)):
            raise BadStep(f"run_as {str(self.run_as)[:40]!r} is not a user name", hint="letters, digits, _ . -")
        seconds: object = self.timeout_s
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < 10**9):
            raise BadStep(f"timeout_s {seconds!r} is not a positive number of seconds", hint="like timeout_s=30")
        for name in self.__struct_fields__:
            require_text(name, getattr(self, name))

    @staticmethod
    def shell(action: str, script: str) -> Shell:
        """Return a Shell step: the one labelled kind, needing `shell:<action>`."""
        from opsexec.steps.process import Shell

        return Shell(action, script)


def is_user_name(text: str) -> bool:
    """True for what may be a user's name."""
    return _USER.match(text) is not None


def service_name(name: str) -> str:
    """Return a valid unit name; raises BadStep otherwise (a leading dash would be an option to systemctl)."""
    if not _SERVICE.match(name):
        raise BadStep(f"service name {name[:60]!r} is malformed", hint="a unit name as systemd.unit(5) has it")
    return name
