"""What a check has foreseen of a host's files: a path that an earlier step would only make, or would have removed."""

from __future__ import annotations

from opsexec.capability import clean_path
from opsexec.handlers.diffs import content_diff
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.files import Link, MakeDir, MoveFile, ReadFile, RemoveFile, SetMode, Stat, WriteFile
from opsexec.steps.sync import Pull, Push

_MAKES = (WriteFile, MakeDir, Link)


class ForeseenFiles:
    """One host's paths as a check would have left them, where that may not be as they are."""

    def __init__(self) -> None:
        self._made: dict[str, bool] = {}
        """Each path that would have been made or changed, and whether with it the directories above it."""
        self._filled: set[str] = set()
        """Trees of which only the copy knows what would be in them."""
        self._gone: set[str] = set()

    def took(self, step: Step) -> None:
        """Note that this step would have changed something."""
        if isinstance(step, RemoveFile):
            self._remove(clean_path(step.path))
        elif isinstance(step, MoveFile):
            self._remove(clean_path(step.path))
            self._make(clean_path(step.to))
        elif isinstance(step, _MAKES):
            self._make(clean_path(step.path), above=not isinstance(step, Link) and step.parents)
        elif isinstance(step, Push):
            self._make(clean_path(step.dest))
            self._filled.add(clean_path(step.dest))

    def _make(self, path: str, *, above: bool = False) -> None:
        self._made[path] = above or self._made.get(path, False)

    def _remove(self, path: str) -> None:
        self._gone.add(path)
        self._made = {made: above for made, above in self._made.items() if not _within(made, path)}
        self._filled = {filled for filled in self._filled if not _within(filled, path)}

    def waits_for(self, step: Step) -> str | None:
        """Return the path for which the host's own answer would be wrong by then, in words; None where it is right."""
        path = _path(step)
        if path is None:
            return None
        if any(_within(path, gone) for gone in self._gone):
            return path
        if not isinstance(step, (ReadFile, Stat, Pull, RemoveFile)):
            return None
        whole = isinstance(step, (Pull, RemoveFile)) and any(_within(made, path) for made in self._made)
        return path if whole or path in self._made or any(_within(path, tree) for tree in self._filled) else None

    def explains_missing(self, step: Step) -> str | None:
        """Return the path that a step didn't find only because an earlier one made nothing; else None."""
        path = _path(step)
        if path is None:
            return None
        parent = path.rpartition("/")[0] or "/"
        above = any(with_parents and _within(made, parent) for made, with_parents in self._made.items())
        return path if above or any(_within(path, made) for made in self._made) else None

    def finds_nothing(self, step: Step) -> bool:
        """True when the step would remove what an earlier one has removed already, and so change nothing."""
        if not isinstance(step, RemoveFile):
            return False
        path = clean_path(step.path)
        return any(_within(path, gone) for gone in self._gone) and not any(_within(made, path) for made in self._made)


def assumed_diff(step: Step) -> str | None:
    """Return what a step that couldn't be asked for would have written, where that can be said."""
    if isinstance(step, WriteFile) and not isinstance(step.content, Secret):
        return content_diff(clean_path(step.path), None, step.body)
    return None


def _path(step: Step) -> str | None:
    if isinstance(step, (ReadFile, Stat, RemoveFile, MoveFile, SetMode, *_MAKES)):
        return clean_path(step.path)
    if isinstance(step, Push):
        return clean_path(step.dest)
    return clean_path(step.src) if isinstance(step, Pull) else None


def _within(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")
