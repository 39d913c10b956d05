"""What a person gets to see of a workspace: a patch, and what is not in it. Reads the agent's copy by Steps alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bottle.errors import NoSuchBottle
from bottle.workspace.changes import MAX_FILE, Change, Compared, Held, compare
from bottle.workspace.copy_in import MAX_ENTRIES, OBJECTS, Kept, list_tree
from bottle.workspace.git_names import CONFIG, included, into, named, persons_files, read_config
from bottle.workspace.ignore import rules_of
from bottle.workspace.lines import Effort
from bottle.workspace.patch import as_bytes, patch_of
from bottle.workspace.tree import Entry, Tree, read_tree
from opsexec.errors import OpsError
from opsexec.executor import Executor
from opsexec.steps import ListTree, ReadFile

MAX_PATCH = 256 << 20
"""Bytes of all contents in one patch."""

MAX_CHANGES = 10_000
"""More than anybody reads."""

AT_ONCE = 8
"""Files that are read at once: on another host each is a round trip, and a process there."""


@dataclass(frozen=True)
class Base:
    """The state at start: `root`, a copy that the agent never sees; `source`: what it was copied from."""

    root: Path
    tree: Tree
    source: str = ""

    def content(self, entry: Entry) -> bytes:
        """Return what a path held; a link's content is its target."""
        path = self.root / entry.path
        return os.fsencode(os.readlink(path)) if entry.kind == "link" else path.read_bytes()

    def run_by_git(self, environment: Mapping[str, str], home: str) -> set[str]:
        """Return what git runs or reads of the source, by its configuration at start and the person's of now."""
        places = {self.source, os.path.realpath(self.source)} if self.source else set()
        own = self.tree.entries.get(CONFIG)
        config = self.content(own) if own is not None and own.kind == "file" else b""
        files = [(f"{self.source or self.root}/{CONFIG}", config)]
        files += [(str(each), read_config(each)) for each in persons_files(environment, home)]
        found: set[str] = set()
        for at, (file, config) in enumerate(files):
            found |= named(config, places, home, persons=at > 0)
            for path, inner in included(config, file, home, lambda path: self._config(path, places)):
                whole = into(path, places)
                found |= named(inner, places, home, persons=whole is None) | ({whole} if whole else set())
        return found

    def _config(self, path: str, places: Collection[str]) -> bytes:
        """Return a configuration's content; of one in the source, as it was at start."""
        whole = into(path, places)
        return (whole and read_config(self.root / whole)) or read_config(Path(path))


@dataclass
class Review:
    """`patch`: all that comes back; `contents`: what each path is to hold. `whole`: False where not all was seen."""

    compared: Compared
    patch: bytes = b""
    contents: dict[str, bytes] = field(default_factory=dict)
    whole: bool = True
    unreadable: int = 0


def read_base(directory: Path, identity: str, source: str) -> Base:
    """Return a bottle's state at start; raises NoSuchBottle where none was kept. `source`: what was copied."""
    try:
        lines = (directory / "base.jsonl").read_bytes()
    except OSError as error:
        hint = "a bottle that is started with --cwd works on a copy of a directory"
        raise NoSuchBottle(f"{identity} has no copy of a directory", hint=hint) from error
    return Base(directory / "base", read_tree(lines, {}, "the base"), source)


def needs(workspace: str) -> list[str]:
    """Return the capabilities that `review` uses on the bottle's host."""
    return [f"fs.read:{workspace}", f"fs.read:{workspace}/**"]


async def review(ex: Executor, workspace: str, base: Base, asked: Collection[str] = ()) -> Review:
    """Compare the agent's copy with the state at start. `workspace`: where that copy is on its host."""
    now = await list_tree(ex, ListTree(path=workspace, excludes=OBJECTS, max_entries=2 * MAX_ENTRIES))
    ignored = rules_of(base.tree, lambda path: (base.root / path).read_bytes())
    run = base.run_by_git(os.environ, os.path.expanduser("~"))
    compared = compare(base.tree, now, ignored, asked, run)
    found = Review(compared, whole=now.whole, unreadable=now.unreadable)
    room, effort = MAX_PATCH, Effort()
    chosen: list[Change] = []
    for change in compared.changes:
        if len(chosen) >= MAX_CHANGES:
            compared.held.append(
                Held(change.path, change.kind, f"the patch holds {MAX_CHANGES} changes already", False)
            )
            continue
        room -= sum(entry.size for entry in (change.old, change.new) if entry is not None and entry.kind == "file")
        if room < 0:
            compared.held.append(
                Held(change.path, change.kind, f"the patch holds {MAX_PATCH >> 20} MiB already", False)
            )
            continue
        chosen.append(change)
    kept: list[Change] = []
    told: list[bytes] = []
    async for change, new in _contents(ex, workspace, chosen):
        if isinstance(new, OpsError):
            compared.held.append(Held(change.path, change.kind, f"it couldn't be read: {new.message}", False))
            continue
        kept.append(change)
        found.contents[change.path] = new
        told.append(patch_of(change, b"" if change.old is None else base.content(change.old), new, effort))
    compared.changes = kept
    found.patch = b"".join(told)
    return found


async def _contents(
    ex: Executor, workspace: str, changes: Sequence[Change]
) -> AsyncIterator[tuple[Change, bytes | OpsError]]:
    """Yield each change, in order, with what its path holds now, or why that can't be read."""
    for at in range(0, len(changes), AT_ONCE):
        async with asyncio.TaskGroup() as reading:
            tasks = [reading.create_task(_read(ex, workspace, change)) for change in changes[at : at + AT_ONCE]]
        for task in tasks:
            yield task.result()


async def _read(ex: Executor, workspace: str, change: Change) -> tuple[Change, bytes | OpsError]:
    try:
        return await _present(ex, workspace, change)
    except OpsError as error:
        return change, error


async def _present(ex: Executor, workspace: str, change: Change) -> tuple[Change, bytes]:
    """Return what a path holds now. What was read is what counts, should the agent have gone on since the listing."""
    if change.new is None:
        return change, b""
    if change.new.kind == "link":
        return change, as_bytes(change.new.target or "")
    kept = Kept()
    await ex.run(ReadFile(f"{workspace}/{change.path}", max_bytes=MAX_FILE), kept)
    data = bytes(kept.data)
    entry = replace(change.new, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return replace(change, new=entry), data
