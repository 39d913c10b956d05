"""What is not brought back unasked: paths by which an agent would run code, or steer another agent, on the host."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from bottle.workspace.acted_on import DIRECTORIES, FILES, NEVER, WARNED
from bottle.workspace.names import folded_path, is_short, may_be_short_for
from bottle.workspace.tree import Entry

REPOSITORY = frozenset({"head", "objects", "refs"})
"""What makes a directory a git repository of its own, whatever its name: git reads the config beside them."""

INSIDE = REPOSITORY | {"config", "config.worktree", "hooks", "info", "packed-refs", "index", "logs", "worktrees"}
"""What git reads of such a directory."""


def never(path: str, repositories: Collection[str] = ()) -> str | None:
    """Return why no option brings this path back; None where one would. `repositories`: bare ones of the workspace."""
    names = folded_path(path)
    for name in names:
        if name in NEVER or is_short(name):
            reason = next((NEVER[each] for each in NEVER if name == each or may_be_short_for(name, each)), None)
            if reason is not None:
                return reason
    if not repositories:
        return None
    why = "a part of what git would take for a repository, and run what it says"
    if "" in repositories and any(names[0] == each or may_be_short_for(names[0], each) for each in INSIDE):
        return why
    at = path
    while at:
        if at in repositories:
            return why
        at = at.rpartition("/")[0]
    return None


def held_back(path: str) -> str | None:
    """Return why a path waits until it is asked for; None for one that doesn't."""
    names = folded_path(path)
    for name in names:
        reason = _listed(name, DIRECTORIES)
        if reason is not None:
            return reason
        if is_short(name):
            return "Windows may take it for another file's name"
    return _listed(names[-1], FILES)


def warned(path: str) -> str | None:
    """Return what to know of a path before it is brought back; None for nothing."""
    names = folded_path(path)
    if any(name.startswith("-") for name in names):
        return "programs that are given every file here (`*`) take its name for an option"
    return _listed(names[-1], WARNED)


def _listed(name: str, patterns: dict[str, str]) -> str | None:
    if name in patterns:
        return patterns[name]
    return next((why for pattern, why in patterns.items() if "*" in pattern and fnmatchcase(name, pattern)), None)


def leads_astray(entry: Entry, links: Collection[str] = ()) -> str | None:
    """Return why a link isn't brought back: where it leads is outside, or held back itself. None for a harmless one.

    `links`: paths that are links: what leads through another one comes out elsewhere than its text says.
    """
    target = entry.target or ""
    if target.startswith("/") or "\\" in target:
        return "a link out of the directory"
    place = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), target))
    if place == ".." or place.startswith("../"):
        return "a link out of the directory"
    if any(each in links and each != entry.path for each in _upwards(place)):
        return "a link through another one"
    if ".." in target.split("/")[_leading_ups(target) :]:
        return "a link that goes down and up again"
    reason = never(place) or held_back(place)
    return f"a link to {place}: {reason}" if reason else None


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and each directory above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _leading_ups(target: str) -> int:
    parts = target.split("/")
    return next((at for at, part in enumerate(parts) if part not in ("..", ".")), len(parts))


def repositories(paths: Collection[str]) -> set[str]:
    """Return the directories that git would take for a repository, though none is called .git."""
    found: dict[str, set[str]] = {}
    for path in paths:
        parent, _, name = path.rpartition("/")
        lower = folded_path(name)[0]
        if lower in REPOSITORY:
            found.setdefault(parent, set()).add(lower)
    return {parent for parent, names in found.items() if names == REPOSITORY}
