"""Damage to bytes, as a fuzzer does it: reproducible from a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Mutator:
    """Damages one of some seeds at a time. `words`: what gets spliced in."""

    def __init__(self, seed: int, corpus: Sequence[bytes], words: Sequence[bytes]) -> None:
        self.random = random.Random(seed)
        self._corpus = list(corpus)
        self._words = list(words)
        self._ways: list[Callable[[bytearray], None]] = [
            self._flip, self._cut, self._repeat, self._insert, self._drop, self._number, self._splice, self._random,
        ]  # fmt: skip

    def next(self) -> bytes:
        """Return one damaged input; now and then bytes that never were anything."""
        if self.random.random() < 0.02:
            return self.random.randbytes(self.random.randrange(200))
        data = bytearray(self.random.choice(self._corpus))
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 6))):
            self.random.choice(self._ways)(data)
        return bytes(data)

    def _at(self, data: bytearray) -> int:
        return self.random.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _cut(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _drop(self, data: bytearray) -> None:
        at = self._at(data)
        del data[at : at + self.random.randrange(1, 9)]

    def _repeat(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = data[at : at + self.random.randrange(1, 33)] * self.random.randrange(1, 20)

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self.random.choice(self._words)

    def _number(self, data: bytearray) -> None:
        at = self._at(data)
        data[at : at + 4] = struct.pack(">I", self.random.choice(INTERESTING))

    def _splice(self, data: bytearray) -> None:
        other = self.random.choice(self._corpus)
        data[self._at(data) :] = other[self.random.randrange(len(other) + 1) :]

    def _random(self, data: bytearray) -> None:
        at = self._at(data)
        size = self.random.randrange(1, 9)
        data[at : at + size] = self.random.randbytes(size)
