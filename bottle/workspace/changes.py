"""Two states of a workspace, compared: what changed, what of it may come back, and why the rest doesn't."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

from bottle.workspace.names import same_file_key
from bottle.workspace.protected import held_back, leads_astray, never, repositories, warned
from bottle.workspace.tree import Entry, Tree

MAX_FILE = 32 << 20
"""Bytes of a file that may be part of a patch, before or after."""

Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True)
class Change:
    """One path that is not as it was. `old`, `new`: None where there was, or is, nothing."""

    path: str
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> Kind:
        """What happened to it."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


@dataclass(frozen=True)
class Held:
    """A change that stays where it is. `askable`: it comes when it is named."""

    path: str
    kind: Kind
    why: str
    askable: bool


@dataclass
class Compared:
    """What comes back (`changes`, in the order of their paths), what doesn't, and what to know first."""

    changes: list[Change] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0


def compare(
    base: Tree,
    now: Tree,
    ignored: Callable[[str, bool], bool],
    asked: Collection[str] = (),
    run: Collection[str] = (),
) -> Compared:
    """Compare the state at start with the present one.

    `asked`: paths that come though they would be held back; `run`: what git would run of it.
    """
    found = Compared()
    clashing = _clashes(base, now)
    repos = repositories(now.entries)
    links = {path for path, entry in (*base.entries.items(), *now.entries.items()) if entry.kind == "link"}
    covers = _Covered()
    for path in sorted({*base.entries, *now.entries}, key=lambda each: each.split("/")):
        old, new = base.entries.get(path), now.entries.get(path)
        if covers.over(path) or _same(old, new):
            continue
        change = Change(path, old, new)
        if old is None and new is not None and _is_left_out(path, new, ignored):
            found.ignored += 1
            covers.add(path)
            continue
        why, askable = _judged(change, clashing, repos, links)
        if why is None and _would_run(change, run):
            why, askable = "git runs it: .git/config or your own configuration names it", True
        if why is not None and not (askable and _asked_for(path, asked)):
            directory = _is_directory(new or old)
            if directory and askable and any(each.startswith(f"{path}/") for each in asked):
                continue
            found.held.append(Held(path, change.kind, why, askable))
            if directory:
                covers.add(path)
            continue
        if _is_directory(old) or _is_directory(new):
            # A patch knows no directories: what is in them says that they are there. A change of kind shows in both.
            if old is not None and new is not None and _is_directory(old) != _is_directory(new):
                left = Change(path, None if _is_directory(old) else old, None if _is_directory(new) else new)
                found.changes.append(left)
            continue
        found.changes.append(change)
        note = why or (warned(path) if new is not None else None)
        if note is not None:
            found.warnings.append((path, note))
        if new is not None and new.executable and new.kind == "file" and not (old and old.executable):
            found.warnings.append((path, "it can be run now"))
    return found


class _Covered:
    """Directories of which one line is enough."""

    def __init__(self) -> None:
        self._tops: set[str] = set()

    def add(self, path: str) -> None:
        self._tops.add(path)

    def over(self, path: str) -> bool:
        at = path.rpartition("/")[0]
        while at:
            if at in self._tops:
                return True
            at = at.rpartition("/")[0]
        return False


def _asked_for(path: str, asked: Collection[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in asked)


def _would_run(change: Change, run: Collection[str]) -> bool:
    """True for a path that is run, or lies below one; also for a link in the place of a directory above one."""
    entry = change.new or change.old
    if entry is None or entry.kind == "directory":
        return False
    above = entry.kind == "link" and any(each.startswith(f"{change.path}/") for each in run)
    return above or _asked_for(change.path, run)


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == "directory"


def _is_left_out(path: str, new: Entry, ignored: Callable[[str, bool], bool]) -> bool:
    return new.kind in ("file", "link", "directory") and never(path) is None and ignored(path, new.kind == "directory")


def _same(old: Entry | None, new: Entry | None) -> bool:
    """True when nothing of it changed that a patch could say; a file that wasn't read is never the same as another."""
    if old is None or new is None or old.kind != new.kind:
        return False
    if old.kind == "file":
        known = old.sha256 is not None and old.sha256 == new.sha256
        return known and old.size == new.size and old.executable == new.executable
    return old.target == new.target


def _judged(
    change: Change, clashing: Collection[str], repos: Collection[str], links: Collection[str]
) -> tuple[str | None, bool]:
    """Return why a change is held back, None for no reason, and whether it comes when it is asked for."""
    old, new = change.old, change.new
    why = never(change.path, repos)
    if why is None and any(ord(each) < 32 or ord(each) == 127 for each in change.path):
        why = "its name holds a control character"
    if why is None and change.path in clashing:
        why = "another path is the same to systems that ignore case or form"
    if why is not None:
        return why, False
    for entry in (new, old):
        if entry is None or entry.kind in ("directory", "link"):
            continue
        if entry.kind != "file":
            return f"a {entry.kind}", False
        if entry.size > MAX_FILE:
            return f"{entry.size} bytes, over the {MAX_FILE >> 20} MiB a patch takes", False
    if new is not None and new.kind == "file" and new.sha256 is None:
        return "it couldn't be read", False
    if new is not None and new.kind == "link":
        why = leads_astray(new, links)
        if why is not None:
            return why, False
    return held_back(change.path), True


def _clashes(base: Tree, now: Tree) -> set[str]:
    """Return the paths of the present state that would be one file with another where case or form doesn't count."""
    seen: dict[str, str] = {}
    found: set[str] = set()
    for path in now.entries:
        key = same_file_key(path)
        other = seen.setdefault(key, path)
        if other != path and not (path in base.entries and other in base.entries):
            found |= {path, other}
    return {path for path in found if path not in base.entries or base.entries[path] != now.entries[path]}
