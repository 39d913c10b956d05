"""Listing a whole tree under grants: metadata and digests, no link followed, everything bounded."""

from __future__ import annotations

import hashlib
import json
import os
import stat as st

from opsexec.far.attributes import kind_of, octal
from opsexec.far.exclude import Excludes
from opsexec.far.files import READ_FLAGS, packed
from opsexec.far.match import admits_path
from opsexec.far.message import FarError, unpack_layers, unpack_message
from opsexec.far.survey import LIST
from opsexec.far.walk import decode, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 128
"""How deep a tree is walked: each level holds a directory open."""

MAX_PATH = 4096
"""Bytes of a path from the top. A longer one can be made, a part at a time, and no program can name it."""

MAX_TEXT = 256 << 20
"""Bytes of a whole listing: whoever fills a tree says how long its names are, too."""

BLOCK = 1 << 20


def list_tree(args: list[bytes]) -> list[bytes]:
    """[path, grants, excludes, max_entries, max_file_bytes, max_bytes] -> [lines, json]."""
    path, grants, excludes, most, file_bytes, all_bytes = args
    layers = unpack_layers(grants)
    tree = Tree(layers, Excludes(unpack_message(excludes)), int(most), int(file_bytes), int(all_bytes))
    exists = True
    try:
        with located(decode(path), layers, "fs.read", follow=False) as place:
            fd = os.open(place.name, LIST, dir_fd=place.fd)
            try:
                tree.read(fd, b"", place.path.rstrip("/"), 1)
            finally:
                os.close(fd)
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except FarError as error:
        if error.code != "not_directory":
            raise
        exists = False
    counts = {"entries": len(tree.lines), "cut": tree.cut, "denied": tree.denied, "unreadable": tree.unreadable}
    return ["".join(tree.lines).encode("ascii"), packed({"exists": exists, **counts})]


class Tree:
    """What one listing has found so far."""

    def __init__(self, layers: list[list[str]], excludes: Excludes, most: int, file_bytes: int, budget: int) -> None:
        self.layers = layers
        self.excludes = excludes
        self.most = most
        self.file_bytes = file_bytes
        self.budget = budget
        self.room = MAX_TEXT
        self.lines: list[str] = []
        self.cut = False
        self.denied = 0
        self.unreadable = 0

    def read(self, fd: int, below: bytes, real: str, depth: int) -> None:
        """List one open directory. `below`: its path from the top, with a slash at its end; `real`: its whole path."""
        names: list[bytes] = []
        with os.scandir(fd) as found:
            for entry in found:
                if len(names) + len(self.lines) >= self.most:
                    self.cut = True
                    break
                names.append(os.fsencode(entry.name))
        for name in sorted(names):
            if len(self.lines) >= self.most or self.room < 0:
                self.cut = True
                return
            try:
                self._one(fd, name, below, real, depth)
            except OSError:  # it went, or isn't ours to read
                self.unreadable += 1

    def _one(self, fd: int, name: bytes, below: bytes, real: str, depth: int) -> None:
        place = real + "/" + decode(name)
        if not admits_path(self.layers, place):
            self.denied += 1
            return
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        directory = st.S_ISDIR(info.st_mode)
        if self.excludes.excludes(below + name, directory):
            return
        if len(below) + len(name) > MAX_PATH:
            self.cut = True
            return
        entry: dict[str, Any] = {"path": decode(below + name), "kind": kind_of(info), "mode": octal(info.st_mode)}
        entry["size"] = info.st_size
        entry["links"] = info.st_nlink
        if st.S_ISLNK(info.st_mode):
            entry["target"] = decode(os.readlink(name, dir_fd=fd))
        elif st.S_ISREG(info.st_mode) and info.st_size <= min(self.file_bytes, self.budget):
            entry["sha256"] = self._sha256(fd, name)
        line = json.dumps(entry) + "\n"
        self.room -= len(line)
        if self.room < 0:
            self.cut = True
            return
        self.lines.append(line)
        if not directory:
            return
        if depth >= MAX_DEPTH:
            self.cut = True
            return
        inner = os.open(name, LIST, dir_fd=fd)
        try:
            self.read(inner, below + name + b"/", place, depth + 1)
        finally:
            os.close(inner)

    def _sha256(self, fd: int, name: bytes) -> str | None:
        """Return a file's digest; None for one that grew past the bounds meanwhile, or can't be read."""
        try:
            file = os.open(name, READ_FLAGS, dir_fd=fd)
        except OSError:
            self.unreadable += 1
            return None
        digest = hashlib.sha256()
        left = min(self.file_bytes, self.budget)
        try:
            if not st.S_ISREG(os.fstat(file).st_mode):
                return None
            while True:
                block = os.read(file, BLOCK)
                if not block:
                    return digest.hexdigest()
                left -= len(block)
                self.budget -= len(block)
                if left < 0:
                    return None
                digest.update(block)
        finally:
            os.close(file)
