"""Lines of two files, compared within a bound: Myers' O(ND) search, and a plain replacement where that would be long.

E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", Algorithmica 1 (1986).
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_STEPS = 1000
"""Differences that are searched for; the search's memory grows with their square."""

MAX_EFFORT = 100_000_000
"""What all searches of one review may take together, each a step of a millionth of a second or so."""

CONTEXT = 3
Run = tuple[int, int, int, int]
"""Lines old[a:b] give way to new[c:d]."""


class Effort:
    """What is left for the searches of one review: whoever wrote the files also says how long each takes."""

    def __init__(self, left: int = MAX_EFFORT) -> None:
        self.left = left


def runs(old: Sequence[bytes], new: Sequence[bytes], effort: Effort | None = None) -> list[Run]:
    """Return what changed, in order."""
    start = 0
    while start < len(old) and start < len(new) and old[start] == new[start]:
        start += 1
    end = 0
    while end < len(old) - start and end < len(new) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    left, right = old[start : len(old) - end], new[start : len(new) - end]
    if not left and not right:
        return []
    found = _search(left, right, effort or Effort()) if left and right else None
    if found is None:
        return [(start, start + len(left), start, start + len(right))]
    return [(a + start, b + start, c + start, d + start) for a, b, c, d in found]


def _search(old: Sequence[bytes], new: Sequence[bytes], effort: Effort) -> list[Run] | None:
    """Return the shortest edit as runs; None when it takes over MAX_STEPS steps, or more than is left."""
    n, m = len(old), len(new)
    furthest = {1: 0}
    trace: list[dict[int, int]] = []
    for depth in range(min(n + m, MAX_STEPS) + 1):
        effort.left -= depth + 1
        if effort.left < 0:
            return None
        trace.append(dict(furthest))
        for k in range(-depth, depth + 1, 2):
            down = k == -depth or (k != depth and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            y = x - k
            while x < n and y < m and old[x] == new[y]:
                x, y = x + 1, y + 1
            furthest[k] = x
            if x >= n and y >= m:
                return _backwards(trace, n, m)
    return None


def _backwards(trace: list[dict[int, int]], x: int, y: int) -> list[Run]:
    found: list[Run] = []
    for depth in range(len(trace) - 1, 0, -1):
        furthest, k = trace[depth], x - y
        down = k == -depth or (k != depth and furthest[k - 1] < furthest[k + 1])
        before = k + 1 if down else k - 1
        x0 = furthest[before]
        y0 = x0 - before
        step = (x0, x0, y0, y0 + 1) if down else (x0, x0 + 1, y0, y0)
        if found and found[-1][0] == step[1] and found[-1][2] == step[3]:
            found[-1] = (step[0], found[-1][1], step[2], found[-1][3])
        else:
            found.append(step)
        x, y = x0, y0
    return found[::-1]


def unified(old: bytes, new: bytes, effort: Effort | None = None) -> list[bytes]:
    """Return the hunks of a unified diff, each line with its end."""
    before, after = _split(old), _split(new)
    hunks: list[list[Run]] = []
    for run in runs(before, after, effort):
        if hunks and run[0] - hunks[-1][-1][1] <= 2 * CONTEXT:
            hunks[-1].append(run)
        else:
            hunks.append([run])
    told: list[bytes] = []
    for hunk in hunks:
        told += _hunk(before, after, hunk)
    return told


def _split(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _hunk(old: list[bytes], new: list[bytes], hunk: list[Run]) -> list[bytes]:
    a, c = hunk[0][0], hunk[0][2]
    lead = min(CONTEXT, a)
    b, d = hunk[-1][1], hunk[-1][3]
    tail = min(CONTEXT, len(old) - b)
    told = [b"@@ -%s +%s @@\n" % (_range(a - lead, b + tail), _range(c - lead, d + tail))]
    at = a - lead
    for left, right, first, last in hunk:
        told += [_line(b" ", line) for line in old[at:left]]
        told += [_line(b"-", line) for line in old[left:right]]
        told += [_line(b"+", line) for line in new[first:last]]
        at = right
    return [*told, *(_line(b" ", line) for line in old[at : b + tail])]


def _range(start: int, end: int) -> bytes:
    count = end - start
    return b"%d,%d" % (start + 1 if count else start, count)


def _line(mark: bytes, line: bytes) -> bytes:
    return mark + line if line.endswith(b"\n") else mark + line + b"\n\\ No newline at end of file\n"
