"""Reads typed values from YAML nodes; every complaint is a BadRunbook that starts with file:line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opsexec.errors import BadRunbook, OpsError
from opsexec.runbook.reference import nearest
from opsexec.runbook.step_keys import in_keys
from opsexec.runbook.yaml_nodes import Entry, Node, fault


class NodeReader:
    """Typed access to the nodes of one file."""

    def __init__(self, file: str) -> None:
        self.file = file

    @contextmanager
    def at(self, line: int) -> Iterator[None]:
        """Turn any error of this project raised inside into a BadRunbook at this line."""
        try:
            yield
        except OpsError as error:
            if isinstance(error, BadRunbook) and error.placed:
                raise
            kind = type(error) if isinstance(error, BadRunbook) else BadRunbook
            message, hint = in_keys(error.message), in_keys(error.hint or "") or None
            raise kind(f"{self.file}:{line}: {message}", hint=hint, placed=True) from error

    def map(self, node: Node) -> dict[str, Entry]:
        """Return a map's entries."""
        if node.kind != "map":
            fault(self.file, node.line, f"a map is needed, not {node.what}", "write key: value")
        entries: dict[str, Entry] = node.value
        return entries

    def entries(self, node: Node, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, Entry]:
        """Return a map's entries; every key is among `known`, and the `required` ones are there."""
        entries = self.map(node)
        for key, entry in entries.items():
            if key not in known:
                fault(self.file, entry.line, f"unknown key {key[:60]!r}", nearest(key, known))
        for key in required:
            if key not in entries:
                fault(self.file, node.line, f"{key!r} is missing", "known: " + ", ".join(known))
        return entries

    def list(self, node: Node) -> list[Node]:
        """Return a list's nodes."""
        if node.kind != "list":
            fault(
                self.file,
                node.line,
                f"a list is needed, not {node.what}",
                "write [a, b], or one per line after -",
            )
        items: list[Node] = node.value
        return items

    def text(self, node: Node) -> str:
        """Return a scalar as it is written: an unquoted 0644 or 3.10 is taken at its word."""
        if node.kind != "scalar" or node.value is None:
            fault(self.file, node.line, f"text is needed, not {node.what}", "quote it")
        return node.raw

    def bool(self, node: Node) -> bool:
        """Return true or false."""
        if not isinstance(node.value, bool):
            fault(self.file, node.line, f"true or false is needed, not {node.raw[:40]!r}", "write true or false")
        return node.value

    def number(self, node: Node) -> int | float:
        """Return a number."""
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            found = repr(node.raw[:40]) if isinstance(node.value, str) else node.what
            fault(self.file, node.line, f"a number is needed, not {found}", "at most 19 digits, no quotes, no units")
        return node.value

    def whole(self, node: Node) -> int:
        """Return a whole number."""
        value = self.number(node)
        if not isinstance(value, int):
            fault(self.file, node.line, f"a whole number is needed, not {node.raw[:40]!r}")
        return value

    def share(self, node: Node) -> int | str:
        """Return a count or a percentage, as it is written; its meaning is checked where it is used."""
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return node.value
        return self.text(node)

    def data(self, node: Node) -> Any:
        """Return any node as plain data; a number that is written otherwise than it would be said stays as it is."""
        if node.kind == "map":
            return {key: self.data(entry.node) for key, entry in node.value.items()}
        if node.kind == "list":
            return [self.data(each) for each in node.value]
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool) and str(node.value) != node.raw:
            return node.raw  # a version 1.10 and a commit 1234e56 are no numbers
        return node.value
