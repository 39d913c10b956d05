"""What every Step has: the user it runs as, its deadline, and the requirements derived from its fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import msgspec

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret

if TYPE_CHECKING:
    from opsexec.steps.process import Shell

LOADER_VARIABLES = frozenset(
    [
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "PS4",
        "CDPATH",
        "GLOBIGNORE",
        "NODE_OPTIONS",
        "NODE_PATH",
        "RUBYOPT",
        "RUBYLIB",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "CLASSPATH",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "HOSTALIASES",
        "RES_OPTIONS",
        "TERMINFO",
        "TERMINFO_DIRS",
        "TERMCAP",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "BROWSER",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "OPENSSL_ENGINES",
        "XDG_CONFIG_HOME",
        "HOME",
    ]
)
"""Variables that decide which code or configuration a program loads; from ld.so(8), bash(1), environ(7), sudoers(5)."""

LOADER_PREFIXES = ("LD_", "DYLD_", "PYTHON", "PERL", "GIT_", "BASH_FUNC_", "MALLOC_", "GLIBC_", "NPM_CONFIG_", "SSH_")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
_SERVICE = re.compile(r"[A-Za-z0-9_:.@\\][A-Za-z0-9_:.@\\-]{0,254}\Z")
RUN_MARKER = "OPSEXEC_RUN"
"""Every process of a run carries this variable; it is how the tree is found again (see docs/architecture.md)."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
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
        if self.run_as is not None and not _USER.match(self.run_as):
            raise BadStep(f"run_as {self.run_as[:40]!r} is not a user name", hint="letters, digits, _ . -")
        if self.timeout_s is not None and not 0 < self.timeout_s < 10**9:
            raise BadStep(f"timeout_s {self.timeout_s} is not a positive number of seconds")

    @staticmethod
    def shell(action: str, script: str) -> Shell:
        """Return a Shell step: the one labelled kind, needing `shell:<action>`."""
        from opsexec.steps.process import Shell

        return Shell(action, script)


def environment_needs(env: dict[str, str | Secret]) -> tuple[Requirement, ...]:
    """Return an `env` requirement for each variable that decides which code a program loads.

    Raises BadStep for a malformed name, a value with NUL, or the marker that opsexec itself sets.
    """
    needs = []
    for name, value in env.items():
        if not _VARIABLE.match(name):
            raise BadStep(f"environment name {name[:40]!r} is malformed", hint="letters, digits and _")
        if name == RUN_MARKER:
            raise BadStep(f"{RUN_MARKER} is set by opsexec itself", hint="use another name")
        if "\0" in (value.reveal() if isinstance(value, Secret) else value):
            raise BadStep(f"the value of {name} holds a NUL byte", hint="an environment can't carry it; use stdin")
        if name in LOADER_VARIABLES or name.startswith(LOADER_PREFIXES):
            needs.append(Requirement("env", name))
    return tuple(needs)


def service_name(name: str) -> str:
    """Return a valid unit name; raises BadStep otherwise (a leading dash would be an option to systemctl)."""
    if not _SERVICE.match(name):
        raise BadStep(f"service name {name[:60]!r} is malformed", hint="a unit name as systemd.unit(5) has it")
    return name
