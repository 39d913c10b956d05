"""Plain text tables and flat listings for stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from opsexec.cli.ending import printable


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, columns padded to their widest cell but the last."""
    shown = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(header) - 1)]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text) of every leaf of plain JSON data; lists of plain values stay on one line."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            shown = printable(str(key))
            yield from flat(each, f"{name}.{shown}" if name else shown)
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        for at, each in enumerate(value):
            yield from flat(each, f"{name}[{at}]")
    elif isinstance(value, list):
        yield name, ", ".join(map(_text, value)) or "-"
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(str(value))


def size(count: float) -> str:
    """Return a number of bytes as people read it, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
