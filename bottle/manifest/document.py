"""One manifest as data that knows its lines: YAML front matter with a Markdown body, or a plain object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bottle.errors import BadManifest
from opsexec.errors import BadRunbook
from opsexec.runbook.yaml_nodes import Node, parse_nodes

FENCE = "---"
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """What one manifest says. `lines`: where each value stands, by its path; empty for an object."""

    where: str
    data: dict[str, Any]
    body: str
    digest: str
    lines: Mapping[Path, int] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Return `file:line` of the value at this path, or of the nearest one around it."""
        if not self.lines:
            return self.where
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.where}:{self.lines.get(path, 1)}"


def parse_markdown(text: str, where: str) -> Document:
    """Split front matter from body and read it; raises BadManifest with file:line."""
    lines = text.split("\n")
    if lines[0].rstrip("\r") != FENCE:
        raise BadManifest(f"{where}:1: no front matter", hint="the file starts with a line `---`, keys, and `---`")
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip("\r") == FENCE), None)
    if end is None:
        raise BadManifest(f"{where}:{len(lines)}: the front matter has no end", hint="close it with a line `---`")
    head = "\n" + "\n".join(lines[1:end]) + "\n"
    body = "\n".join(lines[end + 1 :])
    digest = text_digest(text)
    if not head.strip():
        return Document(where, {}, body, digest, {(): 1})
    try:
        root = parse_nodes(head, where)
    except BadRunbook as error:
        raise BadManifest(error.message, hint=error.hint) from error
    if root is None:
        raise BadManifest(f"{where}:1: the front matter is empty", hint="write key: value, or leave its lines out")
    if root.kind != "map":
        raise BadManifest(f"{where}:{root.line}: the front matter is {root.what}", hint="write key: value")
    places: dict[Path, int] = {(): 2}
    return Document(where, _data(root, (), places), body, digest, places)


def text_digest(text: str) -> str:
    """Return the sha256 of a manifest's text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _data(node: Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.line)
    if node.kind == "map":
        found = {}
        for key, entry in node.value.items():
            lines[(*path, key)] = entry.line
            found[key] = _data(entry.node, (*path, key), lines)
        return found
    if node.kind == "list":
        return [_data(each, (*path, at), lines) for at, each in enumerate(node.value)]
    return node.value


def from_object(data: object, where: str) -> Document:
    """Take a JSON-shaped object; raises BadManifest for anything that isn't a map of plain values."""
    if not isinstance(data, Mapping):
        raise BadManifest(f"{where}: a map is needed, not {type(data).__name__}", hint="give key: value")
    try:
        text = json.dumps(data, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadManifest(f"{where}: not JSON-shaped data ({error})", hint="text, numbers, lists and maps") from error
    plain: dict[str, Any] = json.loads(text)
    body = plain.pop("prompt", "")
    if not isinstance(body, str):
        raise BadManifest(f"{where}: prompt is not text", hint="quote it")
    return Document(where, plain, body, hashlib.sha256(text.encode()).hexdigest())
