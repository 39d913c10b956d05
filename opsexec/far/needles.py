"""Many needles looked for in one text: those that can't stand there are left out by one pass for all of them.

Wherever a needle stands, a text's aligned words of 8 bytes, of which every second is looked at, hold 8 bytes of it, if
it has 23: at one of 16 places in the needle, which are known. Words of 4 bytes do the same for one of 7. A needle none
of whose words are among the text's isn't looked for; each other one is. Standard library alone, Python 3.8 on.
"""

from __future__ import annotations

from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COARSE = (8, 2)
"""Bytes of a word, and which words are looked at: every second."""

FINE = (4, 1)
FEW = 24
"""So many needles are looked for one by one as fast as by their words."""


class Needles:
    """`(needle, name)` in the order in which they are looked for."""

    def __init__(self, pairs: Iterable[tuple[bytes, str]]) -> None:
        self._pairs = tuple(pairs)
        self._always = list(range(len(self._pairs)))
        self._sieves = []  # type: list[_Sieve]
        for form in (COARSE, FINE):
            long = [at for at in self._always if len(self._pairs[at][0]) >= _least(form)]
            if len(long) > FEW:
                self._sieves.append(_Sieve(self._pairs, long, form))
                self._always = sorted(set(self._always) - set(long))

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def first_in(self, data: bytes) -> str | None:
        """Return the name of the first needle that stands in `data`; None for none."""
        likely = self._always
        for sieve in self._sieves:
            likely = likely + sieve.likely(data)
        for at in sorted(set(likely)):
            needle, name = self._pairs[at]
            if needle in data:
                return name
        return None


class Beginnings:
    """Tells by one pass that none of some needles begins in a text with `least` bytes or more of it."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self.least = _least(COARSE)
        pairs = [(each, "") for each in needles if len(each) >= self.least]
        self._sieve = _Sieve(pairs, range(len(pairs)), COARSE)

    def may_be_in(self, data: bytes) -> bool:
        """Return False where none does."""
        return self._sieve.has_any(data)


class _Sieve:
    """Which of some needles may stand in a text, by the words that they would have there."""

    def __init__(self, pairs: Sequence[tuple[bytes, str]], chosen: Sequence[int], form: tuple[int, int]) -> None:
        self._size, self._step = form
        self._whose = {}  # type: dict[int, list[int]]
        for at in chosen:
            for begin in range(self._size * self._step):
                word = int.from_bytes(pairs[at][0][begin : begin + self._size], byteorder)
                self._whose.setdefault(word, []).append(at)
        self._words = frozenset(self._whose)

    def likely(self, data: bytes) -> list[int]:
        """Return those that may, by their places among the pairs."""
        return [at for word in self._words.intersection(self._looked_at(data)) for at in self._whose[word]]

    def has_any(self, data: bytes) -> bool:
        """Return True where there is one that may."""
        return not self._words.isdisjoint(self._looked_at(data))

    def _looked_at(self, data: bytes) -> memoryview:
        whole = memoryview(data)[: len(data) // self._size * self._size]
        words = whole.cast("Q") if self._size == COARSE[0] else whole.cast("I")
        return words[:: self._step]


def _least(form: tuple[int, int]) -> int:
    """Return how long a needle is at least that always has one of the words."""
    size, step = form
    return size * step - 1 + size
