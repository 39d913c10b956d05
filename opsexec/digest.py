"""`StreamDigest`: the digest of a run's output: SHA-256 of a short one, BLAKE3 of a long one."""

from __future__ import annotations

import hashlib
from typing import Protocol

from opsexec.executor import TAIL_BYTES

SHORT = TAIL_BYTES
"""Bytes up to which the digest is SHA-256, as everybody's tools have it: what a RunOutput holds whole.

Above, it is BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), because a fast stream waits for its hash: of 500 MB
over SSH, SHA-256 takes a quarter of the time, BLAKE3 a twentieth (docs/decisions/0087-long-output-has-blake3.md).
"""


class _Hash(Protocol):
    @property
    def name(self) -> str: ...

    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


class StreamDigest:
    """Takes blocks in order; `str` of it is the digest of all so far, `sha256:<hex>` or `blake3:<hex>`.

    `standard`: SHA-256 whatever the length, as of a detached run, which the standard library alone hashes on its host.
    """

    def __init__(self, *, standard: bool = False) -> None:
        self._standard = standard
        self._start: list[bytes] = []
        self._size = 0
        self._hash: _Hash | None = None

    def update(self, data: bytes) -> None:
        """Take a block."""
        if self._hash is None:
            self._start.append(data)
            self._size += len(data)
            if self._size <= SHORT:
                return
            self._hash = hashlib.sha256() if self._standard else _blake3()
            data = b"".join(self._start)
            self._start.clear()
        self._hash.update(data)

    def __str__(self) -> str:
        found = hashlib.sha256(b"".join(self._start)) if self._hash is None else self._hash
        return f"{found.name}:{found.hexdigest()}"


def _blake3() -> _Hash:
    from blake3 import blake3  # here: short outputs don't wait for it to be loaded

    return blake3()


def differ(one: str, other: str) -> bool:
    """True unless two digests may be of the same output: SHA-256 and BLAKE3 say nothing about each other."""
    return one != other and {one.partition(":")[0], other.partition(":")[0]} != {"sha256", "blake3"}
