"""YAML text -> nodes that know their line. Bounded in size, depth and expansion; duplicate keys and tags
are refused.

The tree is built from the parser's events in a loop of our own, so neither nesting nor aliases can exhaust
anything.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, NoReturn

from opsexec.errors import BadRunbook

MAX_BYTES = 512 << 10
MAX_DEPTH = 24
MAX_NODES = 50_000
"""Nodes in the document with every alias written out: what an alias bomb runs into."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]{1,3})?\Z")
_STUMBLES = (ArithmeticError, LookupError, ValueError, AttributeError, TypeError, AssertionError)
"""What the parser itself raises over some malformed escapes and directives."""

_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


class Node(NamedTuple):
    """One value. `raw`: a scalar's text as written.

    `value`: a scalar's typed value, a list, or a dict of Entry.
    """

    kind: Literal["scalar", "list", "map"]
    line: int
    value: Any
    raw: str = ""
    weight: int = 1

    @property
    def what(self) -> str:
        """The kind in words, for errors."""
        if self.kind != "scalar":
            return f"a {self.kind}"
        return {str: "text", bool: "true or false", int: "a number", float: "a number"}.get(type(self.value), "empty")


class Entry(NamedTuple):
    """One key of a map: where it stands, and its value."""

    line: int
    node: Node


class _Open:
    """A list or map that is still being read."""

    def __init__(self, kind: Literal["list", "map"], line: int, anchor: str | None) -> None:
        self.kind: Literal["list", "map"] = kind
        self.line = line
        self.anchor = anchor
        self.items: list[Node] = []
        self.entries: dict[str, Entry] = {}
        self.key: Node | None = None
        self.weight = 1


def parse_nodes(text: str, file: str) -> Node | None:
    """Parse one YAML document, None for an empty one; raises BadRunbook with file:line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        fault(file, 1, f"over {MAX_BYTES >> 10} KiB", "keep data in files of its own")
    builder = _Builder(file)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise BadRunbook(
            f"{file}:{line}: not YAML: {error.problem or error.context}", hint="check quotes and indent", placed=True
        ) from error
    except YAMLError as error:
        said = str(error).partition("\n")[0]
        raise BadRunbook(f"{file}:1: not YAML: {said}", hint="save it as UTF-8", placed=True) from error
    except _STUMBLES as error:
        text = f"{file}:{builder.line}: not YAML ({type(error).__name__})"
        raise BadRunbook(text, hint="check quotes and %", placed=True) from error
    return builder.root


def fault(file: str, line: int, message: str, hint: str | None = None) -> NoReturn:
    """Raise BadRunbook at a line."""
    raise BadRunbook(f"{file}:{line}: {message}", hint=hint, placed=True)


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.line = 1
        self.root: Node | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: Any) -> None:
        """Take one parser event."""
        self.line = event.start_mark.line + 1 if event.start_mark is not None else self.line
        name = type(event).__name__
        if getattr(event, "tag", None) not in (None, "!"):
            fault(self.file, self.line, f"a YAML tag ({str(event.tag)[:40]})", "only plain data is read")
        anchor = getattr(event, "anchor", None)
        if name == "DocumentStartEvent" and self.root is not None:
            fault(self.file, self.line, "a second document", "one file holds one document")
        if name == "ScalarEvent":
            if any("\ud800" <= character <= "\udfff" for character in event.value):
                fault(self.file, self.line, "a lone surrogate is no character", "write the character itself")
            self._add(_scalar(event, self.line), anchor)
        elif name == "AliasEvent":
            node = self._anchors.get(str(anchor))
            if node is None:
                fault(
                    self.file,
                    self.line,
                    f"alias *{anchor} names nothing complete",
                    "an alias can't hold itself",
                )
            self._add(node, None)
        elif name in ("SequenceStartEvent", "MappingStartEvent"):
            if len(self._stack) >= MAX_DEPTH:
                fault(self.file, self.line, f"nested over {MAX_DEPTH} deep", "about six levels are enough")
            self._stack.append(_Open("list" if name[0] == "S" else "map", self.line, anchor))
        elif name in ("SequenceEndEvent", "MappingEndEvent"):
            done = self._stack.pop()
            value: Any = done.items if done.kind == "list" else done.entries
            self._add(Node(done.kind, done.line, value, weight=done.weight), done.anchor)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        top.weight += node.weight
        if top.weight > MAX_NODES:
            fault(
                self.file,
                self.line,
                f"over {MAX_NODES} values once aliases are written out",
                "is this a bomb?",
            )
        if top.kind == "list":
            top.items.append(node)
        elif top.key is None:
            if node.kind != "scalar":
                fault(self.file, node.line, f"a key is {node.what}", "keys are text")
            top.key = node
        else:
            key, top.key = top.key, None
            if key.raw in top.entries:
                first = top.entries[key.raw].line
                fault(
                    self.file,
                    key.line,
                    f"key {key.raw[:60]!r} stands twice (first in line {first})",
                    "keep one",
                )
            top.entries[key.raw] = Entry(key.line, node)


def _scalar(event: Any, line: int) -> Node:
    """Return a scalar by YAML 1.2's core schema: quoted is text, so are `yes`, `on` and dates."""
    raw: str = event.value
    value: Any = raw
    if event.style is None or event.style == "":
        if raw in _WORDS or raw.lower() in ("true", "false", "null"):
            value = _WORDS[raw.lower()]
        elif _INT.match(raw):
            value = int(raw)
        elif _FLOAT.match(raw) and not raw.lstrip("+-").isdigit():
            value = float(raw)
            if value in (float("inf"), float("-inf")):
                value = raw
    return Node("scalar", line, value, raw)
