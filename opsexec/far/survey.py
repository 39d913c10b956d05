"""Listing a directory to some depth under grants: metadata of each entry, no link followed, everything bounded."""

from __future__ import annotations

import os
import stat as st

from opsexec.far.attributes import group_name, kind_of, octal, user_name
from opsexec.far.files import READ_FLAGS, packed
from opsexec.far.match import admits_path
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.walk import decode, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_LIMIT = 1 << 20
"""The largest file whose sha256 is worked out, in bytes."""

DIGEST_BUDGET = 64 << 20
"""How many bytes one survey reads for digests in all."""

LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def survey(args: list[bytes]) -> list[bytes]:
    """[path, grants, depth, max_entries, digest?] -> [json]; a missing directory is `{"exists": false}`."""
    path, grants, depth, most, digest = args
    layers = unpack_layers(grants)
    listing = Listing(layers, int(most), digest == b"1")
    try:
        with located(decode(path), layers, "fs.read") as place:
            fd = os.open(place.name, LIST, dir_fd=place.fd)
            try:
                listing.read(fd, place.asked.rstrip("/"), place.path.rstrip("/"), int(depth))
            finally:
                os.close(fd)
    except (FileNotFoundError, NotADirectoryError):
        return [packed({"exists": False, "entries": [], "cut": False, "denied": 0, "unreadable": 0})]
    except FarError as error:
        if error.code == "not_directory":
            return [packed({"exists": False, "entries": [], "cut": False, "denied": 0, "unreadable": 0})]
        raise
    return [packed(listing.answer())]


class Listing:
    """What one survey has found so far."""

    def __init__(self, layers: list[list[str]], most: int, digest: bool) -> None:
        self.layers = layers
        self.most = most
        self.digest = digest
        self.budget = DIGEST_BUDGET
        self.entries: list[dict[str, Any]] = []
        self.cut = False
        self.denied = 0
        self.unreadable = 0

    def answer(self) -> dict[str, Any]:
        """Return it all as JSON data."""
        return {
            "exists": True,
            "entries": self.entries,
            "cut": self.cut,
            "denied": self.denied,
            "unreadable": self.unreadable,
        }

    def read(self, fd: int, asked: str, real: str, depth: int) -> None:
        """List one open directory. `asked`: how the caller names it; `real`: the place without links."""
        names: list[bytes] = []
        with os.scandir(fd) as found:
            for entry in found:
                if len(names) > self.most:
                    self.cut = True
                    break
                names.append(os.fsencode(entry.name))
        for name in sorted(names):
            if len(self.entries) >= self.most:
                self.cut = True
                return
            self._one(fd, name, asked, real, depth)

    def _one(self, fd: int, name: bytes, asked: str, real: str, depth: int) -> None:
        text = decode(name)
        if not (admits_path(self.layers, asked + "/" + text) and admits_path(self.layers, real + "/" + text)):
            self.denied += 1
            return
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            entry = self._described(fd, name, info)
        except OSError:
            self.unreadable += 1
            return
        # Names need not be text; this one can be shown, though not always asked for again.
        shown = name.decode("utf-8", "backslashreplace")
        entry["path"] = asked.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") + "/" + shown
        self.entries.append(entry)
        if st.S_ISDIR(info.st_mode) and depth > 1:
            try:
                inner = os.open(name, LIST, dir_fd=fd)
            except OSError:
                self.unreadable += 1
                return
            try:
                self.read(inner, asked + "/" + text, real + "/" + text, depth - 1)
            finally:
                os.close(inner)

    def _described(self, fd: int, name: bytes, info: os.stat_result) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "kind": kind_of(info),
            "size": info.st_size,
            "mode": octal(info.st_mode),
            "owner": user_name(info.st_uid),
            "group": group_name(info.st_gid),
            "uid": info.st_uid,
            "gid": info.st_gid,
            "mtime": info.st_mtime,
            "target": None,
            "sha256": None,
        }
        if st.S_ISLNK(info.st_mode):
            entry["target"] = os.readlink(name, dir_fd=fd).decode("utf-8", "backslashreplace")
        elif self.digest and st.S_ISREG(info.st_mode) and info.st_size <= FILE_LIMIT:
            entry["sha256"] = self._sha256(fd, name)
        return entry

    def _sha256(self, fd: int, name: bytes) -> str | None:
        import hashlib

        try:
            file = os.open(name, READ_FLAGS, dir_fd=fd)
        except OSError:
            return None
        try:
            if not st.S_ISREG(os.fstat(file).st_mode):
                return None
            data = os.read(file, min(FILE_LIMIT, self.budget))
            self.budget -= len(data)
            whole = not os.read(file, 1)
        finally:
            os.close(file)
        return hashlib.sha256(data).hexdigest() if whole else None
