"""A review, applied to the directory the copy was made from: all of it, or nothing where that has changed meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bottle.workspace.changes import Change
from bottle.workspace.copy_in import MAX_ENTRIES, OBJECTS, list_tree
from bottle.workspace.review import Review
from bottle.workspace.tree import Entry, Tree
from opsexec.errors import OpsError
from opsexec.executor import Executor
from opsexec.steps import Link, ListTree, MakeDir, RemoveFile, Step, WriteFile


class Conflict(OpsError):
    """The directory isn't as the bottle found it, where a change would go."""

    code = "conflict"


class HalfApplied(OpsError):
    """Something went wrong when some of the changes were made already."""

    code = "half_applied"


def needs(directory: str) -> list[str]:
    """Return the capabilities that `apply` uses on the launcher's own machine."""
    return [f"{verb}:{directory}{more}" for verb in ("fs.read", "fs.write", "fs.remove") for more in ("", "/**")]


async def apply(ex: Executor, directory: str, found: Review) -> int:
    """Write the changes; returns how many. Raises Conflict, before anything is written, where one wouldn't fit.

    Raises HalfApplied where a later one couldn't be made: what was made stays.
    """
    here = await list_tree(ex, ListTree(path=directory, excludes=OBJECTS, max_entries=2 * MAX_ENTRIES))
    if not here.whole:
        text = f"not all of {directory} could be seen, so nobody can tell what would be overwritten"
        raise Conflict(text, hint="`bottle pull -o FILE` writes the patch, for `git apply --3way FILE`")
    changes = found.compared.changes
    going = {change.path for change in changes if change.new is None}
    conflicts = [(change.path, why) for change in changes if (why := conflict(change, here, going))]
    if conflicts:
        more = f", and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
        text = "; ".join(f"{path}: {why}" for path, why in conflicts[:5])
        hint = "`bottle pull -o FILE` writes the patch, for `git apply --3way FILE`"
        raise Conflict(f"{directory} changed since the bottle was started: {text}{more}", hint=hint)
    for done, step in enumerate(steps(directory, found.compared.changes, found.contents, here)):
        try:
            await ex.run(step)
        except OpsError as error:
            if not done:
                raise
            text = f"{directory} has some of the changes and not all ({done} steps were made): {error.message}"
            raise HalfApplied(text, hint="`bottle pull -o FILE` writes the whole patch, to compare with") from error
    return len(found.compared.changes)


def conflict(change: Change, here: Tree, going: Collection[str] = ()) -> str | None:
    """Return why a change doesn't fit the directory as it is; None when it does. `going`: paths that are removed."""
    entry = here.entries.get(change.path)
    at = change.path.rpartition("/")[0]
    while at:
        above = here.entries.get(at)
        if above is not None and above.kind == "link":
            return f"{at} is a link here"
        at = at.rpartition("/")[0]
    if change.old is None:
        if entry is None:
            return None
        if entry.kind == "directory" and all(path in going for path in _below(change.path, here)):
            return None
        return "it is here already"
    if entry is None:
        return "it is gone here"
    if not _alike(entry, change.old):
        return "it was changed here"
    return None


def _alike(one: Entry, other: Entry) -> bool:
    if one.kind != other.kind:
        return False
    if one.kind == "file":
        return one.sha256 is not None and one.sha256 == other.sha256 and one.executable == other.executable
    return one.target == other.target


def _below(path: str, here: Tree) -> Iterator[str]:
    """Yield what a directory holds, without directories."""
    for each, entry in here.entries.items():
        if each.startswith(f"{path}/") and entry.kind != "directory":
            yield each


def steps(directory: str, changes: Sequence[Change], contents: Mapping[str, bytes], here: Tree) -> Iterator[Step]:
    """Yield what is done: first what goes, with the directories that are empty then; after that what comes."""
    gone = {change.path for change in changes if change.old is not None and _goes(change)}
    for path in sorted({*gone, *_emptied(gone, here)}, key=lambda each: each.count("/"), reverse=True):
        yield RemoveFile(f"{directory}/{path}")
    for change in changes:
        new, path = change.new, f"{directory}/{change.path}"
        if new is None:
            continue
        if new.kind == "link":
            yield MakeDir(path.rpartition("/")[0])
            yield Link(path, new.target or "")
            continue
        old = change.old if change.old is not None and change.old.kind == "file" else None
        mode = None if old is not None and old.executable == new.executable else "0755" if new.executable else "0644"
        yield WriteFile(path, data=contents[change.path], mode=mode, parents=True)


def _goes(change: Change) -> bool:
    return change.new is None or (change.old is not None and change.old.kind != change.new.kind)


def _emptied(gone: Collection[str], here: Tree) -> set[str]:
    """Return the directories of which nothing is left once these paths are gone."""
    left: dict[str, int] = {}
    for path in here.entries:
        parent = path.rpartition("/")[0]
        left[parent] = left.get(parent, 0) + 1
    found: set[str] = set()
    todo = [path for path in gone if path in here.entries]
    while todo:
        parent = todo.pop().rpartition("/")[0]
        left[parent] -= 1
        if parent and left[parent] == 0:
            found.add(parent)
            todo.append(parent)
    return found
