"""Calls of the far operations as a test words them: text and keywords in, answers as plain data out."""

from __future__ import annotations

import json
import os
from pathlib import Path

from opsexec.far.message import pack_layers
from opsexec.far.operations import OPERATIONS


class FarCalls:
    """The file operations under grants: patterns of one layer, or several layers of patterns."""

    def __init__(self, *patterns: str, layers: list[list[str]] | None = None, operations=None) -> None:
        self.grants = pack_layers(layers if layers is not None else [list(patterns)])
        self.operations = OPERATIONS if operations is None else operations

    def call(self, operation: str, path: str | Path, *rest: bytes) -> list[bytes]:
        return self.operations[operation]([os.fsencode(path), self.grants, *rest])

    def read(self, path, offset=0, limit=1 << 20) -> bytes:
        return self.call("read_file", path, b"%d" % offset, b"%d" % limit)[0]

    def stat(self, path, digest=True):
        return json.loads(self.call("stat", path, *([b"1"] if digest else []))[0])

    def write(self, path, data, mode="", owner="", group="", parents=False, check=False, readers=None, private=False):
        """Returns (changed, old content, meta)."""
        told = b"" if readers is None else pack_layers([readers])
        attributes = [mode.encode(), owner.encode(), group.encode()]
        flags = [b"%d" % parents, b"%d" % check]
        changed, old, meta = self.call("write_file", path, data, *attributes, *flags, told, b"%d" % private)
        return changed == b"1", old, json.loads(meta)

    def remove(self, path, recursive=False, check=False) -> bool:
        return self.call("remove", path, b"%d" % recursive, b"%d" % check)[0] == b"1"

    def move(self, path, to, check=False, readers=None) -> bool:
        told = self.grants if readers is None else pack_layers([readers])
        return self.call("move_file", path, told, os.fsencode(to), self.grants, b"%d" % check)[0] == b"1"

    def make_dir(self, path, mode="", owner="", group="", parents=True, check=False):
        flags = [b"%d" % parents, b"%d" % check]
        changed, meta = self.call("make_dir", path, mode.encode(), owner.encode(), group.encode(), *flags)
        return changed == b"1", json.loads(meta)

    def link(self, path, target, check=False) -> bool:
        return self.call("link", path, os.fsencode(target), b"%d" % check)[0] == b"1"

    def set_mode(self, path, mode="", owner="", group="", check=False):
        args = [mode.encode(), owner.encode(), group.encode(), b"%d" % check]
        changed, meta = self.call("set_mode", path, *args)
        return changed == b"1", json.loads(meta)["changes"]
