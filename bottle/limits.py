"""What a bottle may use of its host: the bounds of an agent and of a bundle, and the option that sets them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from opsexec.errors import UsageError

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)([kmgt]?)\Z")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MOST_CPUS = 4096


@dataclass(frozen=True)
class Limits:
    """The agent's bounds; 0: without that one. `memory`, `home`: bytes. `files`: files and directories in the home.

    `memory` is never more than four fifths of the machine's, whatever stands here.
    """

    processes: int = 1024
    memory: int = 4 << 30
    cpus: float = 2.0
    home: int = 16 << 30
    files: int = 1_000_000

    @property
    def words(self) -> tuple[str, ...]:
        """Return the bounds that aren't the usual ones, as `--limit` takes them."""
        return tuple(
            f"{each.name}={getattr(self, each.name):g}"
            if each.name == "cpus"
            else f"{each.name}={getattr(self, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        )


BUNDLE = Limits(processes=1024, memory=4 << 30, cpus=0.0, home=0, files=0)
"""The bundle's own bounds. What it writes is in memory, and has a size of its own."""


def limits(words: Sequence[str]) -> Limits:
    """Return the bounds that `--limit NAME=VALUE` options ask for; raises UsageError for any other word."""
    found = Limits()
    for word in words:
        name, equals, text = word.partition("=")
        match = _NUMBER.match(text.lower())
        if not equals or name not in {each.name for each in fields(Limits)} or match is None:
            names = ", ".join(each.name for each in fields(Limits))
            raise UsageError(
                f"--limit {word[:80]!r} is not NAME=NUMBER", hint=f"names: {names}; 4g, 512m, 1.5, 0 = none"
            )
        value = float(match[1]) * _UNITS[match[2]]
        if name == "cpus":
            if value > MOST_CPUS:
                raise UsageError(f"--limit {word[:80]!r} is more than any machine has")
            found = replace(found, cpus=value)
        elif value != int(value):
            raise UsageError(f"--limit {word[:80]!r} is no whole number")
        else:
            found = replace(found, **{name: int(value)})
    return found


UNHELD = "not held here: no control group can be made, and root is under no limit of its own"


def held_here(limits: Limits) -> str:
    """Return the bounds of a bottle on bubblewrap, started here by this user, each with what holds it."""
    from opsexec.far import sandbox_groups, sandbox_scope, syscall_filter

    return held_by(limits, sandbox_scope.held(), syscall_filter.program() is not None, sandbox_groups.is_root())


def held_by(limits: Limits, held: Mapping[str, str], filtered: bool, root: bool = False) -> str:
    """Return the same for a host that is known. `held`: of `opsexec.far.sandbox_scope`; `filtered`: its calls.

    `root`: whether it runs as that host's root.
    """
    by = {
        "processes": held.get("processes", UNHELD if root else "a limit of the user's"),
        "memory": held.get("memory", "each process for itself; the first to go where the machine has no more"),
        "cpus": held.get("cpus", "kept to as many whole processors" if filtered else "not held here"),
        "home": "watched",
    }
    words = "filtered system calls" if filtered else "no filter of system calls for this machine"
    return f"{named(limits, by)}, {words}"


def held_by_engine(limits: Limits) -> str:
    """Return the bounds of a bottle on Docker, each with what holds it; no engine has been asked yet."""
    by = {**dict.fromkeys(("processes", "memory", "cpus"), "the engine"), "home": "watched"}
    return f"{named(limits, by)}, filtered system calls (an engine whose operator wrote a filter keeps that)"


def named(limits: Limits, by: Mapping[str, str] | None = None) -> str:
    """Return the bounds as one line; `by`: what holds each."""
    home = [size(limits.home)] if limits.home else []
    home += [f"{limits.files} files"] if limits.files else []
    asked = {
        "processes": f"{limits.processes} processes" if limits.processes else "",
        "memory": f"{size(limits.memory)} memory" if limits.memory else "",
        "cpus": f"{limits.cpus:g} cpus" if limits.cpus else "",
        "home": f"home {' and '.join(home)}" if home else "",
    }
    return ", ".join(
        f"{name} without a bound" if not text else f"{text} ({by[name]})" if by else text
        for name, text in asked.items()
    )


def size(number: int) -> str:
    """Return bytes as a person says them."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number / unit:g} {name}" if number % unit == 0 else f"{number / unit:.1f} {name}"
    return f"{number} bytes"
