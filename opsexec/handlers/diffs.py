"""Diffs for people: bounded in size, and silent about what is secret or not text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

MAX_DIFF_CHARACTERS = 64 << 10
"""A longer diff is cut, and says so."""

MAX_DIFF_LINES = 20_000
"""Content of more lines isn't compared line by line."""

MAX_EFFORT = 2000 * 2000
"""Nor is what differs in so many lines on both sides: difflib's cost grows with their product, and who chose the lines
may have chosen the worst; a caller of an agent's would keep the others waiting.
"""

UNSHOWN = {
    code: f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\t\n"
}
"""Characters that steer a terminal, or turn the reading direction and so hide what a line says: shown escaped."""


def content_diff(path: str, old: bytes | None, new: bytes) -> str:
    """Return a unified diff from `old` (None = there was no file) to `new`."""
    texts = _text(old or b""), _text(new)
    if texts[0] is None or texts[1] is None:
        return "(binary content differs)\n"
    before, after = (_lines(text) for text in texts if text is not None)
    if len(before) + len(after) > MAX_DIFF_LINES or _effort(before, after) > MAX_EFFORT:
        return f"(content differs: {len(before)} -> {len(after)} lines)\n"
    path = shown(path)
    source = "/dev/null" if old is None else path
    lines = []
    size = 0
    for line in difflib.unified_diff(before, after, source, path):
        line = line.translate(UNSHOWN)
        text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        size += len(text)
        if size > MAX_DIFF_CHARACTERS:
            lines.append("(diff cut here)\n")
            break
        lines.append(text)
    return "".join(lines)


def attribute_lines(changes: Mapping[str, Sequence[str]]) -> str:
    """Return one line for each changed attribute, like "mode 0644 -> 0600"."""
    return "".join(f"{shown(name)} {shown(before)} -> {shown(after)}\n" for name, (before, after) in changes.items())


def made_lines(made: Sequence[str]) -> str:
    """Return one line for each directory that is made."""
    return "".join(f"directory {shown(path)} made\n" for path in made)


def shown(text: str) -> str:
    """Return a name or value on one line, with what steers a terminal escaped."""
    return text.translate(UNSHOWN).replace("\t", "\\t").replace("\n", "\\n")


def _effort(before: Sequence[str], after: Sequence[str]) -> int:
    """Return the product of the lines between the beginning and the end that both share."""
    least = min(len(before), len(after))
    head = next((at for at in range(least) if before[at] != after[at]), least)
    left = least - head
    tail = next((at for at in range(left) if before[-1 - at] != after[-1 - at]), left)
    return (len(before) - head - tail) * (len(after) - head - tail)


def _lines(text: str) -> list[str]:
    """Split at newlines alone: what else str.splitlines takes for a line end is content."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
