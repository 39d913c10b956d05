"""Putting a planned tree in place: removals, directories, links, files as they come, and attributes last."""

from __future__ import annotations

import os
import stat

from opsexec.far.attributes import change_at, chmod_at
from opsexec.far.faults import fault
from opsexec.far.message import FarError, as_bytes
from opsexec.far.tree_entry import DIRECTORY, KINDS, LINK
from opsexec.far.walk import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.far.copy_pipe import Pipe
    from opsexec.far.tree_dirs import Directories
    from opsexec.far.tree_entry import Entry
    from opsexec.far.tree_plan import Action, TreePlan

NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FATAL = frozenset(("ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE"))
"""Kernel errors after which the next entry can't go better."""


class TreePut:
    """One tree being put in place below `directories`, which is `name` in the open directory `parent`.

    `problems`: what could not be done, entry by entry; the rest is done all the same, as rsync does it.
    """

    def __init__(self, plan: TreePlan, directories: Directories, parent: int, name: bytes) -> None:
        self.plan = plan
        self.directories = directories
        self.parent = parent
        self.name = name
        self.problems = []  # type: list[bytes]
        self._touched = {}  # type: dict[bytes, Entry]  # directories that get their attributes last
        self._waiting = None  # type: tuple[int, Entry, bytes] | None  # a whole file that is not renamed in yet

    def prepare(self, alive: Callable[[], None]) -> None:
        """Do all that needs no content."""
        listed = {entry.name: entry for entry in self.plan.entries if entry.kind == DIRECTORY}
        for path in self.plan.busy:
            entry = listed.get(path or b".")
            if entry is not None:
                self._touched[entry.name] = entry
        self._open_up()
        for name, directory in self.plan.removals:
            alive()
            self._try(name, self._remove, name, directory)
        self.directories.forget()
        for action in self.plan.actions:
            alive()
            if action.clears:
                self._try(action.entry.name, self._remove, action.entry.name, True)
            if not action.fills:
                self._try(action.entry.name, self._apply, action)

    def _open_up(self) -> None:
        """Let the owner into directories in which something changes; they get their modes back at the end."""
        if os.geteuid() == 0:
            return
        for path in sorted(set(self._touched) & set(self.plan.existing)):
            fd, base = self._spot(path)
            mode = stat.S_IMODE(os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode)
            if mode & 0o700 != 0o700:
                self._try(path, chmod_at, base, fd, mode | 0o700)

    def _apply(self, action: Action) -> None:
        entry = action.entry
        if entry.kind == DIRECTORY:
            self._touched[entry.name] = entry
            if action.info is None and entry.name != b".":
                self._make_directory(entry)
        elif entry.kind == LINK:
            self._make_link(entry)
        else:
            fd, base = self._spot(entry.name)
            self._dress_at(entry, base, fd)

    def _make_directory(self, entry: Entry) -> None:
        fd, base = self._spot(entry.name)
        try:
            os.mkdir(base, 0o700, dir_fd=fd)
        except FileExistsError:
            os.unlink(base, dir_fd=fd)  # a file or a link stands there; a directory that came meanwhile stays
            os.mkdir(base, 0o700, dir_fd=fd)

    def _make_link(self, entry: Entry) -> None:
        fd, base = self._spot(entry.name)
        aside = aside_name()
        os.symlink(entry.target, aside, dir_fd=fd)
        try:
            self._dress_at(entry, aside, fd)
            os.rename(aside, base, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:  # whatever it is, nothing of ours stays beside the place
            os.unlink(aside, dir_fd=fd)
            raise

    def _remove(self, name: bytes, directory: bool) -> None:
        fd, base = self._spot(name)
        try:
            if directory:
                os.rmdir(base, dir_fd=fd)
            else:
                os.unlink(base, dir_fd=fd)
        except FileNotFoundError:
            return  # someone else removed it meanwhile: as wanted

    # -- files ----------------------------------------------------------------------------------------------------

    def fill(self, action: Action, size: int, pipe: Pipe) -> None:
        """Take a file's content off the pipe and write it beside its place; the next call renames it in."""
        self._settle()
        entry = action.entry
        aside = aside_name()
        try:
            fd = os.open(aside, NEW_FLAGS, 0o600, dir_fd=self._spot(entry.name)[0])
        except OSError as error:
            self._problem(entry.name, error)
            while size:
                size -= len(pipe.read_some(size))
            return
        try:
            try:
                while size:
                    data = pipe.read_some(size)
                    size -= len(data)
                    while data:
                        data = data[os.write(fd, data) :]
                self._dress(entry, fd)
            finally:
                os.close(fd)
        except BaseException as error:  # the caller's end may break off at any block: no half of a file stays
            os.unlink(aside, dir_fd=self._spot(entry.name)[0])
            if isinstance(error, OSError):
                raise fault(error, "write " + decode(entry.name)) from error
            raise
        self._waiting = (action.place, entry, aside)

    def take_back(self, place: int) -> None:
        """The file that was written last, if it was this one, is not what it was at the source."""
        if self._waiting is not None and self._waiting[0] == place:
            self.abandon()
        else:
            self._settle()

    def abandon(self) -> None:
        """Remove what is written and not in its place."""
        if self._waiting is not None:
            _, entry, aside = self._waiting
            self._waiting = None
            try:
                os.unlink(aside, dir_fd=self._spot(entry.name)[0])
            except FileNotFoundError:
                return  # somebody else who writes there has removed it: of this one entry nothing is left

    def _settle(self) -> None:
        if self._waiting is None:
            return
        _, entry, aside = self._waiting
        fd, base = self._spot(entry.name)
        try:
            os.rename(aside, base, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError as error:
            self.abandon()
            self._problem(entry.name, error)
        self._waiting = None

    # -- attributes -----------------------------------------------------------------------------------------------

    def finish(self, alive: Callable[[], None]) -> None:
        """Rename the last file in, and give directories their attributes, the deepest first."""
        self._settle()
        for name in sorted(self._touched, key=lambda name: (name != b".", name), reverse=True):
            alive()
            self._try(name, self._finish_directory, self._touched[name])

    def _finish_directory(self, entry: Entry) -> None:
        fd, base = self._spot(entry.name)
        self._dress_at(entry, base, fd)

    def _dress(self, entry: Entry, fd: int) -> None:
        """Give a new file its owner, mode and time, in this order: a change of owner clears set-id bits."""
        info = os.fstat(fd)
        uid, gid = self._owner(entry, info)
        if (uid, gid) != (-1, -1):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _dress_at(self, entry: Entry, name: bytes, fd: int) -> None:
        """The same for what stands under a name, which is never followed if it is a link."""
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if KINDS.get(stat.S_IFMT(info.st_mode)) != entry.kind:
            raise FarError("raced", "became something else while it was copied")
        uid, gid = self._owner(entry, info)
        change_at(name, fd, info, uid, gid, None if entry.kind == LINK else entry.mode)
        if entry.mtime != info.st_mtime_ns:
            os.utime(name, ns=(info.st_atime_ns, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def _owner(self, entry: Entry, info: os.stat_result) -> tuple[int, int]:
        uid, gid = self.plan.owners.uid(entry), self.plan.owners.gid(entry)
        return -1 if uid in (None, info.st_uid) else uid or 0, -1 if gid in (None, info.st_gid) else gid or 0

    # -- places and problems --------------------------------------------------------------------------------------

    def _spot(self, name: bytes) -> tuple[int, bytes]:
        """Return the open directory that holds an entry, and its name there."""
        if name == b".":
            return self.parent, self.name
        parent, _, base = name.rpartition(b"/")
        return self.directories.enter(parent), base

    def _try(self, name: bytes, act: Callable[..., None], *args: object) -> None:
        """Do one thing; what fails for this entry alone is noted."""
        try:
            act(*args)
        except OSError as error:
            self._problem(name, error)
        except FarError as error:
            if error.code != "raced":
                raise
            self.problems.append(name + b" " + as_bytes(error.text))

    def _problem(self, name: bytes, error: OSError) -> None:
        """Note a kernel error about one entry; raises it when the next entry can't go better."""
        from errno import errorcode

        if errorcode.get(error.errno or 0) in FATAL:
            raise fault(error, "write " + decode(name)) from error
        if len(self.problems) < 1000:
            self.problems.append(name + b": " + os.strerror(error.errno or 0).encode())


def aside_name() -> bytes:
    """Return a name that nobody can foresee, for what is written beside its place."""
    return b".opsexec-" + os.urandom(12).hex().encode()
