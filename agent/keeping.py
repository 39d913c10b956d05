"""Which of what is kept has to go: nobody's own many runs push out what is somebody else's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Kept(NamedTuple):
    """One thing that is kept: the run it is of, whose that is, and its size in bytes."""

    run: str
    owner: str
    size: int


def surplus(kept: Iterable[Kept], keep: int, keep_bytes: int) -> list[str]:
    """Return the runs whose things go, of `kept` with the newest first, until at most `keep` of `keep_bytes` are left.

    The oldest of whoever has most goes, again and again: most in number while there are too many, then in bytes.
    """
    of: dict[str, list[Kept]] = {}
    for each in kept:
        of.setdefault(each.owner, []).append(each)
    sizes = {owner: sum(each.size for each in theirs) for owner, theirs in of.items()}
    count, size = sum(map(len, of.values())), sum(sizes.values())
    gone = []
    while count > keep or size > keep_bytes:
        counts = {owner: len(theirs) for owner, theirs in of.items()}
        most = max(of, key=(counts if count > keep else sizes).__getitem__)
        oldest = of[most].pop()
        gone.append(oldest.run)
        count, size = count - 1, size - oldest.size
        sizes[most] -= oldest.size
        if not of[most]:
            del of[most]
    return gone
