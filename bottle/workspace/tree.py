"""One state of a workspace: its entries by path, from a listing that others' hosts and agents had a say in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opsexec.errors import ProtocolError

MAX_PATH = 4096
KINDS = frozenset({"file", "directory", "link", "fifo", "socket", "device", "unknown"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One path. `mode`: permission bits; `target`: of a link; `sha256`: of a file, None where it wasn't read."""

    path: str
    kind: str
    mode: int
    size: int
    links: int = 1
    target: str | None = None
    sha256: str | None = None

    @property
    def executable(self) -> bool:
        """True where its owner may run it: all that a patch keeps of a mode."""
        return bool(self.mode & 0o100)


@dataclass(frozen=True)
class Tree:
    """A state. `whole` is False where the listing stopped at a bound; `unreadable`: how many entries weren't seen."""

    entries: Mapping[str, Entry]
    whole: bool = True
    unreadable: int = 0


def read_tree(lines: bytes, value: Mapping[str, Any], where: str) -> Tree:
    """Take what ListTree said; raises ProtocolError for a listing that no tree could have given."""
    entries: dict[str, Entry] = {}
    for line in lines.splitlines():
        entry = _entry(line, where)
        parent = entry.path.rpartition("/")[0]
        if parent and (parent not in entries or entries[parent].kind != "directory"):
            raise ProtocolError(f"the listing has {entry.path[:80]!r} without its directory", host=where)
        if entry.path in entries:
            raise ProtocolError(f"the listing has {entry.path[:80]!r} twice", host=where)
        entries[entry.path] = entry
    return Tree(entries, not (value.get("cut") or value.get("denied")), int(value.get("unreadable", 0)))


def _entry(line: bytes, where: str) -> Entry:
    try:
        found = json.loads(line)
        entry = Entry(
            path=found["path"],
            kind=found["kind"],
            mode=int(found["mode"], 8),
            size=int(found["size"]),
            links=int(found["links"]),
            target=found.get("target"),
            sha256=found.get("sha256"),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError(f"the listing has a line that is none: {line[:80]!r}", host=where) from error
    texts = [text for text in (entry.path, entry.kind, entry.target, entry.sha256) if text is not None]
    if not all(isinstance(text, str) for text in texts) or entry.kind not in KINDS or entry.size < 0:
        raise ProtocolError(f"the listing has a line that is none: {line[:80]!r}", host=where)
    parts = entry.path.split("/")
    if "\0" in entry.path or len(entry.path) > MAX_PATH or any(part in ("", ".", "..") for part in parts):
        raise ProtocolError(f"the listing has {entry.path[:80]!r}, which no directory holds", host=where)
    if (entry.kind == "link") != (entry.target is not None):
        raise ProtocolError(f"the listing has {entry.path[:80]!r}, a link without its target", host=where)
    return entry


def dump(tree: Tree) -> bytes:
    """Return a state as the lines that `read_tree` reads."""
    return b"".join(_line(entry) for entry in tree.entries.values())


def _line(entry: Entry) -> bytes:
    found: dict[str, Any] = {"path": entry.path, "kind": entry.kind, "mode": f"{entry.mode:04o}"}
    found |= {"size": entry.size, "links": entry.links}
    if entry.target is not None:
        found["target"] = entry.target
    if entry.sha256 is not None:
        found["sha256"] = entry.sha256
    return json.dumps(found).encode("ascii") + b"\n"


def total_size(entries: Iterable[Entry]) -> int:
    """Return the bytes of the files, as their lengths say."""
    return sum(entry.size for entry in entries if entry.kind == "file")
