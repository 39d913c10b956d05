"""Diffs for people: bounded in size, and silent about what is secret or not text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import Match
from itertools import accumulate, chain

from opsexec.steering import STEERING

MAX_DIFF_CHARACTERS = 64 << 10
"""A longer diff is cut, and says so."""

MAX_DIFF_LINES = 20_000
"""Content of more lines isn't compared line by line."""

MAX_STEPS = 4_000_000
"""Nor is what takes so many steps of difflib's, some tenths of a second: they grow with the square of the lines, and
faster where who chose the lines chose the worst; a caller of an agent's would keep the others waiting.
"""

CONTEXT = 3
"""Lines that are shown before and after what differs."""

Opcode = tuple[str, int, int, int, int]
"""As difflib has it: what becomes of a stretch of lines, and where that begins and ends before and after."""

UNSHOWN = {
    code: f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    for code in (*range(0x20), *STEERING)
    if chr(code) not in "\t\n"
}
"""What steers a terminal or hides what a line says: shown escaped."""


def content_diff(path: str, old: bytes | None, new: bytes) -> str:
    """Return a unified diff from `old` (None = there was no file) to `new`."""
    texts = _text(old or b""), _text(new)
    if texts[0] is None or texts[1] is None:
        return "(binary content differs)\n"
    before, after = (_lines(text) for text in texts if text is not None)
    if before == after:
        return f"file {shown(path)} made, empty\n" if old is None else ""
    try:
        groups = _groups(before, after)
    except _TooLong:
        return f"(content differs: {len(before)} -> {len(after)} lines)\n"
    name = shown(path)
    lines = []
    size = 0
    for line in chain(
        (f"--- {'/dev/null' if old is None else name}\n", f"+++ {name}\n"), _unified(before, after, groups)
    ):
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


class _TooLong(Exception):
    """To compare takes longer than may be."""


class _Counted(difflib.SequenceMatcher[str]):
    """difflib's comparison, which ends with _TooLong after MAX_STEPS."""

    a: Sequence[str]
    b2j: dict[str, list[int]]
    opcodes: Sequence[Opcode] | None

    def __init__(self, before: Sequence[str], after: Sequence[str]) -> None:
        super().__init__(None, before, after)
        # What one look at a line of `before` takes: a step for each place in `after` where it stands.
        self._steps = [0, *accumulate(1 + len(self.b2j.get(line, ())) for line in before)]
        self._left = MAX_STEPS

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        """As difflib's; raises _TooLong."""
        ahi = len(self.a) if ahi is None else ahi
        self._left -= self._steps[ahi] - self._steps[alo]
        if self._left < 0:
            raise _TooLong
        return super().find_longest_match(alo, ahi, blo, bhi)


def _groups(before: Sequence[str], after: Sequence[str]) -> Iterable[Sequence[Opcode]]:
    """Return what differs, in groups with CONTEXT lines around each; raises _TooLong."""
    if len(before) + len(after) > MAX_DIFF_LINES:
        raise _TooLong
    least = min(len(before), len(after))
    head = next((at for at in range(least) if before[at] != after[at]), least)
    tail = next((at for at in range(least - head) if before[-1 - at] != after[-1 - at]), least - head)
    ends = len(before) - tail, len(after) - tail
    counted = _Counted(before[head : ends[0]], after[head : ends[1]])
    whole: list[Opcode] = [("equal", 0, head, 0, head)] if head else []
    whole += [
        (kind, head + a, head + a_end, head + b, head + b_end) for kind, a, a_end, b, b_end in counted.get_opcodes()
    ]
    whole += [("equal", ends[0], len(before), ends[1], len(after))] if tail else []
    counted.opcodes = whole
    return counted.get_grouped_opcodes(CONTEXT)


def _unified(before: Sequence[str], after: Sequence[str], groups: Iterable[Sequence[Opcode]]) -> Iterator[str]:
    for group in groups:
        (_, a, _, b, _), (_, _, a_end, _, b_end) = group[0], group[-1]
        yield f"@@ -{_span(a, a_end - a)} +{_span(b, b_end - b)} @@\n"
        for kind, a, a_end, b, b_end in group:
            if kind == "equal":
                yield from (f" {line}" for line in before[a:a_end])
            else:
                yield from (f"-{line}" for line in before[a:a_end])
                yield from (f"+{line}" for line in after[b:b_end])


def _span(begin: int, count: int) -> str:
    """Return where lines stand, as diff(1) counts: from 1, and nothing stands behind the line before it."""
    first = begin + 1 if count else begin
    return f"{first}" if count == 1 else f"{first},{count}"


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
