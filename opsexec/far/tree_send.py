"""The sending end of a copy: lists a tree, then sends the files that the other end asks for as a tar stream.

In the stream a file's name is its place in the list, so each header is one plain 512-byte block whatever the file is
called; `N!` holds the reason why entry N could not be read, `N~` takes back the one before it, which changed meanwhile.
"""

from __future__ import annotations

import os
import stat
from struct import unpack

from opsexec.far import copy_pipe
from opsexec.far.copy_pipe import BLOCK, send_texts
from opsexec.far.message import FarError, pack_message
from opsexec.far.tree_dirs import Directories
from opsexec.far.tree_entry import DIRECTORY, FILE, KINDS, LINK, MAX_ENTRIES, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opsexec.far.copy_pipe import Pipe
    from opsexec.far.exclude import Excludes

TAR_BLOCK = 512
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
BATCH = 512


class Sender:
    """Sends one tree. `top` is an open directory, which this takes over; `name` in it is what to send, or `.` for all.

    `admit(name)` raises FarError for an entry that no grant admits.
    """

    def __init__(
        self, pipe: Pipe, top: int, name: bytes, excludes: Excludes, admit: Callable[[bytes], None] | None = None
    ) -> None:
        self.pipe = pipe
        self.directories = Directories(top)
        self.name = name
        self.excludes = excludes
        self.admit = admit
        self.files = []  # type: list[bytes | None]  # the names by place in the list, of regular files
        self.incomplete = False
        self._batch = []  # type: list[bytes]
        self._known = ({}, {})  # type: tuple[dict[int, bytes], dict[int, bytes]]

    def send_list(self) -> None:
        """Send the list, and what was left out of it."""
        for entry in self._walk():
            if self.admit is not None:
                self.admit(entry.name)
            if len(self.files) >= MAX_ENTRIES:
                raise FarError("too_many", f"more than {MAX_ENTRIES} entries")
            self._name_owner(entry)
            self.files.append(entry.name if entry.kind == FILE else None)
            self._batch.append(entry.pack())
            if len(self._batch) >= BATCH:
                self._send_batch()
        self._send_batch()
        self.pipe.send(copy_pipe.LISTED, b"1" if self.incomplete else b"")
        self.pipe.flush()

    def stream(self, wanted: list[int]) -> None:
        """Send these files."""
        for place in wanted:
            name = self.files[place]
            if name is None:
                raise FarError("protocol", "the other end asked for something that is no file")
            try:
                self._send_file(place, name)
            except FileNotFoundError:
                self._send_reason(place, name, "has vanished")
            except PermissionError as error:
                self._send_reason(place, name, "can't be read: " + os.strerror(error.errno or 0))
        self.pipe.write(b"\0" * TAR_BLOCK * 2)
        self.pipe.flush()

    def wanted(self, relay: Callable[[int, bytes], None]) -> list[int]:
        """Return the places of the files the other end asks for; what else it says is relayed."""
        places = []  # type: list[int]
        while True:
            kind, payload = self.pipe.receive()
            if kind != copy_pipe.WANTED:
                relay(kind, payload)
                continue
            if not payload:
                return places
            places += unpack(f">{len(payload) // 4}I", payload)
            if len(places) > len(self.files) or max(places) >= len(self.files):
                raise FarError("protocol", "the other end of the copy wants more than there is")

    # -- the list -------------------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[Entry]:
        """Yield the entries, each directory before what is in it."""
        info = os.stat(self.name, dir_fd=self.directories.top, follow_symlinks=False)
        is_directory = stat.S_ISDIR(info.st_mode)
        if self.name != b"." and self.excludes.excludes(self.name, is_directory):
            return
        entry = self._entry(self.name, info, self.directories.top, self.name)
        if entry is not None:
            yield entry
        pending = [self.name] if is_directory else []
        while pending:
            path = pending.pop()
            self.pipe.alive()
            try:
                found = self.directories.names(path)
            except OSError as error:
                self._problem(path, "can't be listed: " + os.strerror(error.errno or 0))
                continue
            prefix = b"" if path == b"." else path + b"/"
            below = []
            for base, info in found:
                name = prefix + base
                if self.excludes.patterns and self.excludes.excludes(name, stat.S_ISDIR(info.st_mode)):
                    continue
                entry = self._entry(name, info, self.directories.enter(path), base)
                if entry is not None:
                    yield entry
                    if entry.kind == DIRECTORY:
                        below.append(name)
            pending.extend(reversed(below))

    def _entry(self, name: bytes, info: os.stat_result, parent: int, base: bytes) -> Entry | None:
        """Return the entry for what stands here; None, and a word about it, for what isn't copied."""
        kind = KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            send_texts(self.pipe, copy_pipe.SKIPPED, [b'skipping non-regular file "' + name + b'"'])
            return None
        target = b""
        if kind == LINK:
            try:
                target = os.readlink(base, dir_fd=parent)
            except OSError as error:
                self._problem(name, "can't be read: " + os.strerror(error.errno or 0))
                return None
        mode = stat.S_IMODE(info.st_mode)
        size = info.st_size if kind == FILE else 0
        return Entry(name, kind, mode, info.st_uid, info.st_gid, size, info.st_mtime_ns, target)

    def _name_owner(self, entry: Entry) -> None:
        """Send the names behind the numbers, the first time each is met."""
        from opsexec.far.attributes import group_name, user_name

        for kind, number, known, look_up in (
            (copy_pipe.USERS, entry.uid, self._known[0], user_name),
            (copy_pipe.GROUPS, entry.gid, self._known[1], group_name),
        ):
            if number not in known:
                known[number] = look_up(number).encode("utf-8", "surrogateescape")
                self.pipe.send(kind, pack_message([b"%d" % number, known[number]]))

    def _send_batch(self) -> None:
        if self._batch:
            self.pipe.send(copy_pipe.ENTRIES, b"".join(self._batch))
            self._batch = []

    def _problem(self, name: bytes, what: str) -> None:
        self.incomplete = True
        send_texts(self.pipe, copy_pipe.PROBLEM, [name + b" " + what.encode()])

    # -- the stream -----------------------------------------------------------------------------------------------

    def _send_file(self, place: int, name: bytes) -> None:
        parent, _, base = name.rpartition(b"/")
        try:
            fd = os.open(base, READ_FLAGS, dir_fd=self.directories.enter(parent))
        except OSError as error:
            if isinstance(error, (FileNotFoundError, PermissionError)):
                raise
            self._send_reason(place, name, "is no longer what was listed")
            return
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                self._send_reason(place, name, "is no longer a regular file")
                return
            self._send_content(place, name, fd, info.st_size)
        finally:
            os.close(fd)

    def _send_content(self, place: int, name: bytes, fd: int, size: int) -> None:
        """Send as many bytes as the header says; what a file that shrinks lacks is made up, and then taken back."""
        write = self.pipe.write
        write(_header(b"%d" % place, size))
        left = size
        while left:
            data = os.read(fd, min(left, BLOCK))
            if not data:
                break
            write(data)
            left -= len(data)
        for at in range(0, left, BLOCK):
            write(b"\0" * min(BLOCK, left - at))
        write(b"\0" * (-size % TAR_BLOCK))
        if left:
            self._send_text(b"%d~" % place, name + b" changed while it was read")

    def _send_reason(self, place: int, name: bytes, what: str) -> None:
        self._send_text(b"%d!" % place, name + b" " + what.encode())

    def _send_text(self, label: bytes, text: bytes) -> None:
        self.pipe.write(_header(label, len(text)) + text + b"\0" * (-len(text) % TAR_BLOCK))


def _header(name: bytes, size: int) -> bytes:
    """Return a tar header in GNU format, which has room for a file of any size."""
    from tarfile import GNU_FORMAT, TarInfo

    info = TarInfo(name.decode("ascii"))
    info.size = size
    return info.tobuf(GNU_FORMAT, "ascii", "strict")
