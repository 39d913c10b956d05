"""The receiving end of a copy: compares a list with what is there, asks for the files it lacks, puts all in its place.

Each file is written beside its place and renamed in; directories get their modes and times last. Nothing below the
destination is reached through a link.
"""

from __future__ import annotations

import os
import stat
from struct import pack

from opsexec.far import copy_pipe
from opsexec.far.copy_pipe import send_texts
from opsexec.far.message import FarError, unpack_message
from opsexec.far.owners import Owners
from opsexec.far.tree_dirs import LIST_FLAGS, Directories
from opsexec.far.tree_entry import DIRECTORY, Acceptance, unpack_entries
from opsexec.far.tree_plan import TreePlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.far.copy_pipe import Pipe
    from opsexec.far.exclude import Excludes
    from opsexec.far.tree_entry import Entry
    from opsexec.far.tree_put import TreePut

MAX_LINES = 10000
"""How many itemised lines are sent on; all are counted."""
MAX_TEXTS = 100
"""How many problems and left-out entries are told one by one."""
MAX_TEXT = 10000
"""How many bytes of each: a link's name and target are 4095 each at most."""


class Receiver:
    """Receives one tree. `results`: where lines and problems go.

    `parent` is an open directory and `name` the destination in it; `inside`: it was asked for with a trailing slash.
    `only`: the one name that was asked for, empty when the content of a directory was. `admit(name)` raises FarError
    for an entry that no grant admits; its name is relative to the destination, or empty for the destination.
    """

    def __init__(
        self,
        pipe: Pipe,
        results: Pipe,
        parent: int,
        name: bytes,
        excludes: Excludes,
        *,
        inside: bool,
        only: bytes = b"",
        check: bool = False,
        delete: bool = False,
        pushing: bool = False,
        admit: Callable[[bytes], None] | None = None,
    ) -> None:
        self.pipe = pipe
        self.results = results
        self.parent = parent
        self.name = name
        self.excludes = excludes
        self.inside = inside
        self.only = only
        self.check = check
        self.delete = delete
        self.pushing = pushing
        self.admit = admit
        self.owners = Owners()
        self.entries: list[Entry] = []
        self.problems = []  # type: list[bytes]
        self.skipped = []  # type: list[bytes]
        self.incomplete = False
        self.label = b""

    def receive(self) -> None:
        """Do the whole copy. Raises FarError, OSError; what is merely a problem of one entry is told at the end."""
        self._take_list()
        directories, fresh = self._destination() if self.entries else (None, False)
        try:
            plan = self._plan(directories)
            wanted = [] if self.check else [a.place for a in plan.actions if a.fills]
            self._announce(plan, wanted)
            if self.entries and not self.check:
                if directories is None and fresh:
                    os.mkdir(self.name, 0o777, dir_fd=self.parent)
                    directories = Directories(os.open(self.name, LIST_FLAGS, dir_fd=self.parent))
                assert directories is not None
                self._put(plan, directories)
        finally:
            if directories is not None:
                directories.close()
        self._tell(copy_pipe.PROBLEM, self.problems)
        self.results.send(copy_pipe.DONE)
        self.results.flush()

    # -- the list -------------------------------------------------------------------------------------------------

    def _take_list(self) -> None:
        acceptance = Acceptance(self.only)
        while True:
            kind, payload = self.pipe.receive()
            if kind == copy_pipe.ENTRIES:
                for entry in unpack_entries(payload):
                    acceptance.check(entry)
                    self._require_asked_for(entry)
                    self.entries.append(entry)
                self._show_life()
            elif kind in (copy_pipe.USERS, copy_pipe.GROUPS):
                number, name = unpack_message(payload)
                names = self.owners.user_names if kind == copy_pipe.USERS else self.owners.group_names
                if len(names) >= 65536 or len(name) > 255:
                    raise FarError("too_many", "more owners than a tree has")
                names[int(number)] = name.decode("utf-8", "surrogateescape")
            elif kind == copy_pipe.PROBLEM:
                _keep(self.problems, unpack_message(payload))
            elif kind == copy_pipe.SKIPPED:
                _keep(self.skipped, unpack_message(payload))
            elif kind == copy_pipe.LISTED:
                self.incomplete = bool(payload)
                return
            else:
                raise FarError("protocol", "the sending side sent something else than its list")

    def _require_asked_for(self, entry: Entry) -> None:
        """Raise FarError for an excluded entry of a host: what stands here under that name is to stay as it is."""
        if self.pushing or not self.excludes.patterns or entry.name == b".":
            return
        if self.excludes.excludes(entry.name, entry.kind == DIRECTORY):
            shown = repr(entry.name[:200].decode("utf-8", "replace"))
            raise FarError("protocol", f"the sending side's entry {shown} is excluded")

    def _destination(self) -> tuple[Directories | None, bool]:
        """Return the directory the entries go into, None when it has to be made first; a single entry may be renamed.

        The rules are rsync's: main.c, get_local_name().
        """
        try:
            info = os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            info = None
        if info is not None and stat.S_ISDIR(info.st_mode):
            return Directories(os.open(self.name, LIST_FLAGS, dir_fd=self.parent)), False
        single = len(self.entries) == 1 and self.entries[0].name != b"." and not self.inside
        if single and (info is None or self.entries[0].kind != DIRECTORY):
            if self.admit is not None:
                self.admit(b"")
                self.admit = None
            self.label = self.entries[0].name
            self.entries[0].name = self.name
            return Directories(os.dup(self.parent)), False
        if info is not None:
            raise FarError("not_directory", "the destination is not a directory")
        return None, True

    def _plan(self, directories: Directories | None) -> TreePlan:
        if self.incomplete and self.delete:
            self.problems.append(b"nothing was removed, because the source could not be listed completely")
        plan = TreePlan(
            self.entries,
            directories,
            self.owners,
            self.excludes,
            delete=self.delete and not self.incomplete,
            pushing=self.pushing,
            distrust=not self.pushing,
            admit=self.admit,
            alive=self._show_life,
            label=self.label,
        )
        plan.make()
        if directories is not None:
            directories.forget()
        return plan

    def _announce(self, plan: TreePlan, wanted: list[int]) -> None:
        """Tell what changes, and then ask for the files: after that the sending end reads nothing until it has sent."""
        _keep(self.skipped, plan.skipped)
        _keep(self.problems, plan.problems)
        self._tell(copy_pipe.SKIPPED, self.skipped)
        send_texts(self.results, copy_pipe.CHANGES, plan.lines[:MAX_LINES])
        self.results.send(copy_pipe.TOTAL, pack(">Q", len(plan.lines)))
        self.results.flush()
        for at in range(0, len(wanted), 65536):
            part = wanted[at : at + 65536]
            self.pipe.send(copy_pipe.WANTED, pack(f">{len(part)}I", *part))
        self.pipe.send(copy_pipe.WANTED)
        self.pipe.flush()

    def _put(self, plan: TreePlan, directories: Directories) -> None:
        from opsexec.far.tree_put import TreePut

        put = TreePut(plan, directories, self.parent, self.name)
        try:
            put.prepare(self._show_life)
            self._take_files(put, plan)
            put.finish(self._show_life)
        finally:
            put.abandon()
        _keep(self.problems, put.problems)

    def _take_files(self, put: TreePut, plan: TreePlan) -> None:
        from opsexec.far.tree_stream import members

        awaited = {action.place: action for action in plan.actions if action.fills}
        for place, sign, size in members(self.pipe):
            if place not in awaited:
                raise FarError("protocol", "the sending side sent a file that was not asked for")
            if sign:
                put.take_back(place)
                _keep(self.problems, [self.pipe.read(size)])
            else:
                put.fill(awaited[place], size, self.pipe)
            self.pipe.read(-size % 512)

    # -- results --------------------------------------------------------------------------------------------------

    def _show_life(self) -> None:
        self.pipe.alive()

    def _tell(self, kind: int, texts: list[bytes]) -> None:
        send_texts(self.results, kind, texts)


def _keep(kept: list[bytes], texts: list[bytes]) -> None:
    """Keep the first texts of many, and say that there were more."""
    room = MAX_TEXTS - len(kept)
    kept += [text[:MAX_TEXT] for text in texts[:room]] if room > 0 else []
    if 0 <= room < len(texts):
        kept.append(b"and more")
