"""What a copy would change: a list of entries compared with what stands at the destination. Touches nothing.

A file is as it should be when size and time are (rsync's quick check). Lines are itemised as rsync(1) --itemize-changes
has them, so that nobody has to care which way a copy went.
"""

from __future__ import annotations

import os
import stat

from opsexec.far.message import FarError
from opsexec.far.tree_entry import DIRECTORY, FILE, KINDS, LINK, unsafe_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.far.exclude import Excludes
    from opsexec.far.owners import Owners
    from opsexec.far.tree_dirs import Directories
    from opsexec.far.tree_entry import Entry

LETTERS = {FILE: b"f", DIRECTORY: b"d", LINK: b"L"}
NEW = b"+++++++++"
SAME = b"........."
SECOND = 1000000000


class Action:
    """One entry that isn't as it should be. `place`: in the list; `info`: what stands there and stays, None = nothing.

    `fills`: the file's content has to come. `clears`: a directory that has to make way.
    """

    __slots__ = ("clears", "entry", "fills", "info", "place")

    def __init__(
        self, place: int, entry: Entry, info: os.stat_result | None, fills: bool = False, clears: bool = False
    ) -> None:
        self.place = place
        self.entry = entry
        self.info = info
        self.fills = fills
        self.clears = clears


class TreePlan:
    """The comparison. `directories`: the destination, None when it doesn't exist yet.

    `distrust`: the list comes from a side that may be hostile: links that lead out are left out, set-id bits too.
    `admit(name)` raises FarError for an entry that no grant admits. `label`: how a
    single entry that gets another name is called at its source. `busy`: directories in which something changes.
    """

    def __init__(
        self,
        entries: list[Entry],
        directories: Directories | None,
        owners: Owners,
        excludes: Excludes,
        *,
        delete: bool,
        pushing: bool,
        distrust: bool,
        admit: Callable[[bytes], None] | None,
        alive: Callable[[], None],
        label: bytes = b"",
    ) -> None:
        self.entries = entries
        self.directories = directories
        self.owners = owners
        self.excludes = excludes
        self.delete = delete
        self.arrow = b"<" if pushing else b">"
        self.distrust = distrust
        self.admit = admit
        self.alive = alive
        self.label = label
        self.actions = []  # type: list[Action]
        self.removals = []  # type: list[tuple[bytes, bool]]  # what goes, in order; True = a directory
        self.lines = []  # type: list[bytes]
        self.skipped = []  # type: list[bytes]
        self.problems = []  # type: list[bytes]
        self.busy = set()  # type: set[bytes]
        self.existing = []  # type: list[bytes]  # listed directories that are there already
        self._absent = {b""} if directories is None else set()  # type: set[bytes]

    def make(self) -> None:
        """Compare everything."""
        for place, entry in enumerate(self.entries):
            if place % 1000 == 0:
                self.alive()
            if self.admit is not None:
                self.admit(entry.name)
            if self.distrust and entry.kind == LINK and unsafe_link(entry.name, entry.target):
                self.skipped.append(b'ignoring unsafe symlink "' + entry.name + b'" -> "' + entry.target + b'"')
                continue
            if self.distrust and entry.kind == FILE:
                entry.mode &= ~(stat.S_ISUID | stat.S_ISGID)
            self._compare(place, entry)
        if self.delete:
            self._find_extra()

    def _compare(self, place: int, entry: Entry) -> None:
        info = self._standing(entry)
        kind = None if info is None else KINDS.get(stat.S_IFMT(info.st_mode))
        if entry.kind == DIRECTORY:
            if kind == DIRECTORY:
                self.existing.append(entry.name)
            else:
                self._absent.add(entry.name)
        if kind == DIRECTORY and entry.kind != DIRECTORY and not self._make_way(entry):
            return
        if info is None or kind != entry.kind:
            self._change(Action(place, entry, None, entry.kind == FILE, kind == DIRECTORY), NEW)
            return
        flags = bytearray(SAME)
        if entry.kind == FILE and entry.size != info.st_size:
            flags[1:2] = b"s"
        if entry.kind == LINK and entry.target != self._target(entry):
            flags[0:1] = b"c"
        if differs(entry.mtime, info.st_mtime_ns):
            flags[2:3] = b"t"
        fills = flags[1:3] != b".." and entry.kind == FILE
        if entry.kind != LINK and entry.mode != stat.S_IMODE(info.st_mode):
            flags[3:4] = b"p"
        if self.owners.uid(entry) not in (None, info.st_uid):
            flags[4:5] = b"o"
        if self.owners.gid(entry) not in (None, info.st_gid):
            flags[5:6] = b"g"
        if flags != SAME:
            self._change(Action(place, entry, info, fills), bytes(flags))

    def _standing(self, entry: Entry) -> os.stat_result | None:
        """Return what stands at the destination under this name, not following a link."""
        if entry.parent in self._absent or self.directories is None:
            return None
        try:
            fd = self.directories.enter(entry.parent)
            return os.stat(entry.base, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _target(self, entry: Entry) -> bytes:
        assert self.directories is not None
        return os.readlink(entry.base, dir_fd=self.directories.enter(entry.parent))

    def _change(self, action: Action, flags: bytes) -> None:
        entry = action.entry
        self.actions.append(action)
        if entry.name != b"." and (action.info is None or entry.kind != DIRECTORY):
            self.busy.add(entry.parent)
        first = self.arrow if action.fills else b"c" if flags == NEW or flags[:1] == b"c" else b"."
        name = (self.label or entry.name) + (b"/" if entry.kind == DIRECTORY else b"")
        arrow = b" -> " + entry.target if entry.kind == LINK else b""
        self.lines.append(first + LETTERS[entry.kind] + flags + b" " + name + arrow)

    # -- what the source lacks ------------------------------------------------------------------------------------

    def _find_extra(self) -> None:
        """Find what the source lacks in the listed directories."""
        if self.directories is None:
            return
        listed = {}  # type: dict[bytes, set[bytes]]
        for entry in self.entries:
            if entry.name != b".":
                listed.setdefault(entry.parent, set()).add(entry.base)
        for path in self.existing:
            self.alive()
            key = b"" if path == b"." else path
            for base, info in self.directories.names(path):
                if base not in listed.get(key, ()):
                    self._remove(key + b"/" + base if key else base, stat.S_ISDIR(info.st_mode))

    def _make_way(self, entry: Entry) -> bool:
        """Plan to empty the directory that stands where a file or link is to be; False when that can't be."""
        assert self.directories is not None
        empty = not self.directories.names(entry.name)
        if empty or (self.delete and self._remove_below(entry.name)):
            return True
        self.problems.append(b"could not make way for " + entry.name + b": a directory that isn't empty")
        return False

    def _remove(self, name: bytes, directory: bool) -> None:
        """Plan to remove an entry and all below it, but nothing that is excluded."""
        if self.excludes.excludes(name, directory):
            return
        if not directory or self._remove_below(name):
            self._gone(name, directory)

    def _remove_below(self, top: bytes) -> bool:
        """Plan to remove all that is in a directory; False when something in it stays."""
        assert self.directories is not None
        order = [top]
        kept = set()  # type: set[bytes]
        files = {}  # type: dict[bytes, list[bytes]]
        for path in order:  # grows while it is walked
            self.alive()
            files[path] = []
            for base, info in self.directories.names(path):
                name = path + b"/" + base
                directory = stat.S_ISDIR(info.st_mode)
                if self.excludes.excludes(name, directory):
                    kept.add(path)
                elif directory:
                    order.append(name)
                else:
                    files[path].append(name)
        for path in reversed(order):
            for name in files[path]:
                self._gone(name, False)
            if path in kept:
                kept.add(path.rpartition(b"/")[0])
            elif path != top:
                self._gone(path, True)
        return top not in kept

    def _gone(self, name: bytes, directory: bool) -> None:
        if self.admit is not None:
            self.admit(name)
        if len(self.removals) >= 1000000:
            raise FarError("too_many", "over a million entries would be removed")
        self.removals.append((name, directory))
        self.busy.add(name.rpartition(b"/")[0])
        self.lines.append(b"*deleting   " + name + (b"/" if directory else b""))


def differs(wanted: int, present: int) -> bool:
    """True when two times in nanoseconds differ; a file system that keeps whole seconds is taken at its word."""
    if wanted // SECOND != present // SECOND:
        return True
    return wanted != present and wanted % SECOND != 0 and present % SECOND != 0
