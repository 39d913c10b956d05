"""Going on in a home that an agent has had to itself: what the launcher writes there goes where it says, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bottle.backends.base import Phase, Place
from opsexec.executor import Executor
from opsexec.steps import MakeDir, Push, RemoveFile, Stat, WriteFile


async def clear_the_way(ex: Executor, place: Place, phases: Sequence[Phase], say: Callable[[str], None]) -> None:
    """Take away each link that stands where the launcher is about to write or to make a directory, or on the way there.

    The agent isn't running yet, so nobody puts one back.
    """
    home = place.at("home")
    for path in sorted({at for phase in phases for at in _ways(phase, home)}, key=lambda each: each.count("/")):
        value = (await ex.run(Stat(path))).value or {}
        if value.get("exists") and value.get("kind") != "directory" and _is_in_the_way(path, value, phases):
            await ex.run(RemoveFile(path))
            say(f"~{path.removeprefix(home)} was a {value.get('kind')} of the agent's, and is taken away")


def _ways(phase: Phase, home: str) -> set[str]:
    """Return each path below the home that a phase's steps go through."""
    found = set()
    for target in _targets(phase):
        while target.startswith(f"{home}/"):
            found.add(target)
            target = target.rpartition("/")[0]
    return found


def _targets(phase: Phase) -> list[str]:
    found = []
    for step in phase.steps:
        if isinstance(step, (WriteFile, MakeDir)):
            found.append(step.path)
        elif isinstance(step, Push):
            found.append(step.dest)
    return found


def _is_in_the_way(path: str, value: dict[str, object], phases: Sequence[Phase]) -> bool:
    """A plain file may stay where a file is written; anything else that is no directory may not."""
    written = any(isinstance(step, WriteFile) and step.path == path for phase in phases for step in phase.steps)
    return not (written and value.get("kind") == "file")
