"""A file tree in memory that answers `read_file`, `stat`, `write_file` and the rest as a real host does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from opsexec.far.match import admits_path, normalise
from opsexec.far.message import FarError, unpack_layers
from opsexec.far.removal import require_below
from opsexec.far.walk import MAX_LINKS, Place, denial

Layers = list[list[str]]


class FakeNode:
    """One file (`data`), directory, or link (`target`)."""

    def __init__(
        self,
        kind: str,
        *,
        data: bytes = b"",
        target: str | None = None,
        mode: int | None = None,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        self.kind = kind
        self.data = data
        self.target = target
        self.mode = {"file": 0o644, "directory": 0o755, "link": 0o777}[kind] if mode is None else mode
        self.owner = owner
        self.group = group

    def changes(self, mode: bytes, owner: bytes, group: bytes, *, apply: bool) -> dict[str, list[str]]:
        """Return which of the wanted attributes differ, and take them on when `apply`."""
        found: dict[str, list[str]] = {}
        if mode and int(mode, 8) != self.mode:
            found["mode"] = [f"{self.mode:04o}", f"{int(mode, 8):04o}"]
        if owner and owner.decode() != self.owner:
            found["owner"] = [self.owner, owner.decode()]
        if group and group.decode() != self.group:
            found["group"] = [self.group, group.decode()]
        if apply:
            self.mode = int(mode, 8) if mode else self.mode
            self.owner = owner.decode() if owner else self.owner
            self.group = group.decode() if group else self.group
        return found


class FakeTree:
    """Paths and what stands there. The fake's user may do everything; owners are names without numbers."""

    def __init__(self, files: Mapping[str, bytes | str | FakeNode] | None = None, dirs: Iterable[str] = ()) -> None:
        self.nodes: dict[str, FakeNode] = {"/": FakeNode("directory")}
        for path in dirs:
            self._add(normalise(path), FakeNode("directory"))
        for path, value in (files or {}).items():
            data = value.encode() if isinstance(value, str) else value
            self._add(normalise(path), data if isinstance(data, FakeNode) else FakeNode("file", data=data))

    def _add(self, path: str, node: FakeNode) -> None:
        parent = _parent(path)
        if parent not in self.nodes:
            self._add(parent, FakeNode("directory"))
        self.nodes[path] = node

    def call(self, operation: str, args: list[bytes]) -> list[bytes]:
        """Do one operation, with the arguments and answers of `opsexec.far.operations`; raises FarError."""
        return {
            "read_file": self._read,
            "stat": self._stat,
            "write_file": self._write,
            "remove": self._remove,
            "move_file": self._move,
            "make_dir": self._make_dir,
            "link": self._link,
            "set_mode": self._set_mode,
            "survey": self._survey,
            "ping_socket": self._ping,
        }[operation](args)

    def _walk(
        self,
        path: bytes,
        grants: bytes,
        verb: str,
        *,
        follow: bool = True,
        parents: bytes = b"",
        check: bytes = b"",
    ) -> tuple[str, FakeNode | None, list[str]]:
        """Return where a path leads, what stands there, and the directories made (or missing) on the way."""
        asked = normalise(path.decode("utf-8", "surrogateescape"))
        layers = unpack_layers(grants)
        _require(asked, asked, layers, verb)
        todo = asked.split("/")[:0:-1] if asked != "/" else []
        here = "/"
        links = 0
        made: list[str] = []
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = _parent(here)
                continue
            at = _join(here, name)
            last = not any(part not in ("", ".") for part in todo)
            node = self.nodes.get(at)
            if node is not None and node.target is not None and (follow or not last):
                links += 1
                if links > MAX_LINKS:
                    raise FarError("loop", f"{asked} goes through over {MAX_LINKS} links")
                todo.extend(reversed(node.target.split("/")))
                here = "/" if node.target.startswith("/") else here
                continue
            if not last and (node is None or node.kind != "directory"):
                _require(normalise("/".join((at, *reversed(todo)))), asked, layers, verb)
                if node is not None:
                    raise FarError("not_directory", f"{at} is not a directory")
                if parents != b"1" or ".." in todo:
                    raise FarError("not_found", f"can't reach {asked}: No such file or directory")
                _require(at, asked, layers, verb)
                made.append(at)
                if check != b"1":
                    self.nodes[at] = FakeNode("directory")
            here = at
        _require(here, asked, layers, verb)
        return here, self.nodes.get(here), made

    def _read(self, args: list[bytes]) -> list[bytes]:
        path, grants, offset, limit = args
        place, node, _ = self._walk(path, grants, "fs.read")
        node = _file(place, node)
        data = node.data[int(offset) :]
        if len(data) > int(limit):
            raise FarError("too_large", f"{place} is longer than {int(limit)} bytes from offset {int(offset)}")
        return [data, _packed({"path": place, "size": len(node.data), "mode": f"{node.mode:04o}"})]

    def _survey(self, args: list[bytes]) -> list[bytes]:
        """List one directory's own entries; deeper ones are left to a real host."""
        answer: dict[str, Any] = {"exists": False, "entries": [], "cut": False, "denied": 0, "unreadable": 0}
        try:
            place, node, _ = self._walk(args[0], args[1], "fs.read")
        except FarError as error:
            if error.code in ("not_found", "not_directory"):
                return [_packed(answer)]
            raise
        if node is not None and node.kind == "directory":
            layers = unpack_layers(args[1])
            inside = sorted(path for path in self.nodes if path != "/" and _parent(path) == place)
            answer["exists"] = True
            for path in inside:
                if admits_path(layers, path):
                    (said,) = self._stat([path.encode("utf-8", "surrogateescape"), args[1]])
                    answer["entries"].append({"sha256": None, **json.loads(said)})
                else:
                    answer["denied"] += 1
        return [_packed(answer)]

    def _ping(self, args: list[bytes]) -> list[bytes]:
        """No socket of this host answers: none is there, or something else is."""
        (said,) = self._stat(args)
        state = ("odd", "not a socket") if json.loads(said)["exists"] else ("missing", "ENOENT")
        return [_packed({"state": state[0], "detail": state[1]})]

    def _stat(self, args: list[bytes]) -> list[bytes]:
        try:
            place, node, _ = self._walk(args[0], args[1], "fs.read", follow=False)
        except FarError as error:
            if error.code in ("not_found", "not_directory"):
                return [_packed({"exists": False})]
            raise
        if node is None:
            return [_packed({"exists": False})]
        answer: dict[str, Any] = {
            "exists": True,
            "kind": node.kind,
            "size": len(node.target or node.data),
            "mode": f"{node.mode:04o}",
            "owner": node.owner,
            "group": node.group,
            "uid": 0,
            "gid": 0,
            "mtime": 0.0,
            "path": place,
            "target": node.target,
        }
        if args[2:] == [b"1"]:
            answer["sha256"] = hashlib.sha256(node.data).hexdigest() if node.kind == "file" else None
        return [_packed(answer)]

    def _write(self, args: list[bytes]) -> list[bytes]:
        path, grants, data, mode, owner, group, parents, check, readers, private = args
        place, node, made = self._walk(path, grants, "fs.write", parents=parents, check=check)
        self._require_parent(place, made)
        old = None if node is None else _file(place, node)
        tell = bool(readers) and admits_path(unpack_layers(readers), place)
        body = b"" if old is None else old.data
        same = old is not None and body == data
        changes = {} if old is None else old.changes(mode, owner, group, apply=check != b"1")
        if not same and check != b"1":
            if old is None:
                old = self.nodes[place] = FakeNode("file", mode=0o600 if private == b"1" else 0o644)
                old.changes(mode, owner, group, apply=True)
            elif not mode:
                old.mode &= 0o1777
            old.data = data
        meta = {
            "path": place,
            "existed": node is not None,
            "old_size": len(body),
            "old_known": node is None or tell,
            "content": not same,
            "changes": changes,
            "made": made,
        }
        return [_flag(not same or bool(changes)), body if tell else b"", _packed(meta)]

    def _remove(self, args: list[bytes]) -> list[bytes]:
        path, grants, recursive, check = args
        try:
            place, node, _ = self._walk(path, grants, "fs.remove", follow=False)
        except FarError as error:
            if error.code in ("not_found", "not_directory"):
                return [b"0", _packed({"path": None, "kind": None})]
            raise
        if node is None:
            return [b"0", _packed({"path": place, "kind": None})]
        below = [each for each in self.nodes if each.startswith(place.rstrip("/") + "/")]
        if node.kind == "directory" and recursive == b"1":
            require_below(Place(place, -1, b"", place, [], []), unpack_layers(grants))
        elif node.kind == "directory" and below:
            raise FarError("not_empty", f"{place} is a directory that is not empty")
        if check != b"1":
            for each in (*below, place):
                del self.nodes[each]
        return [b"1", _packed({"path": place, "kind": node.kind})]

    def _move(self, args: list[bytes]) -> list[bytes]:
        path, removers, readers, to, writers, check = args
        there, taken, _ = self._walk(to, writers, "fs.write", follow=False)
        self._require_parent(there, [])
        try:
            here, node, _ = self._walk(path, removers, "fs.remove", follow=False)
            _require(here, here, unpack_layers(readers), "fs.read")
        except FarError as error:
            if error.code != "not_found":
                raise
            here, node = "", None
        if node is None:
            if taken is None:
                raise FarError("not_found", f"there is neither {path!r} nor {there}")
            return [b"0", _packed({"path": None, "to": there, "kind": None})]
        if node.kind not in ("file", "link"):
            raise FarError("is_directory" if node.kind == "directory" else "not_regular", f"{here} is a {node.kind}")
        if taken is not None and (taken is not node or here == there):
            raise FarError("exists", f"{there} exists and is a {taken.kind}: nothing is moved over it")
        if check != b"1":
            self.nodes[there] = self.nodes.pop(here)
        return [b"1", _packed({"path": here, "to": there, "kind": node.kind})]

    def _make_dir(self, args: list[bytes]) -> list[bytes]:
        path, grants, mode, owner, group, parents, check = args
        place, node, made = self._walk(path, grants, "fs.write", parents=parents, check=check)
        self._require_parent(place, made)
        changes: dict[str, list[str]] = {}
        if node is None:
            made.append(place)
            if check != b"1":
                node = self.nodes[place] = FakeNode("directory")
                node.changes(mode, owner, group, apply=True)
        elif node.kind != "directory":
            raise FarError("exists", f"{place} exists and is a {node.kind}, not a directory")
        else:
            changes = node.changes(mode, owner, group, apply=check != b"1")
        meta = {"path": place, "made": made, "changes": changes}
        return [_flag(bool(made or changes)), _packed(meta)]

    def _link(self, args: list[bytes]) -> list[bytes]:
        path, grants, target, check = args
        place, node, _ = self._walk(path, grants, "fs.write", follow=False)
        self._require_parent(place, [])
        if node is not None and node.kind != "link":
            raise FarError("exists", f"{place} exists and is a {node.kind}, not a link")
        before = None if node is None else node.target
        wanted = target.decode("utf-8", "surrogateescape")
        if before != wanted and check != b"1":
            self.nodes[place] = FakeNode("link", target=wanted)
        return [_flag(before != wanted), _packed({"path": place, "target": [before, wanted]})]

    def _set_mode(self, args: list[bytes]) -> list[bytes]:
        path, grants, mode, owner, group, check = args
        place, node, _ = self._walk(path, grants, "fs.write", follow=False)
        if node is None:
            raise FarError("not_found", f"can't set the mode or owner of {place}: No such file or directory")
        if node.kind == "link" and mode:
            raise FarError("is_link", f"{place} is a link, and a link has no mode of its own")
        changes = node.changes(mode, owner, group, apply=check != b"1")
        return [_flag(bool(changes)), _packed({"path": place, "changes": changes})]

    def _require_parent(self, place: str, made: list[str]) -> None:
        """Raise FarError unless the directory that is to hold a place exists, or is being made."""
        parent = _parent(place)
        if parent not in made and parent not in self.nodes:
            raise FarError("not_found", f"can't reach {place}: No such file or directory")


def _require(path: str, asked: str, layers: Layers, verb: str) -> None:
    if not admits_path(layers, path):
        raise denial(verb, path, layers, "not granted" if path == asked else f"{asked} leads to {path}")


def _file(place: str, node: FakeNode | None) -> FakeNode:
    if node is None:
        raise FarError("not_found", f"can't read {place}: No such file or directory")
    if node.kind == "directory":
        raise FarError("is_directory", f"{place} is a directory")
    return node


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _join(here: str, name: str) -> str:
    return f"{'' if here == '/' else here}/{name}"


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"


def _packed(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
