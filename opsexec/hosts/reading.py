"""How much asyncio asks a socket for at once."""

from __future__ import annotations

READ_BYTES = 96 << 10
"""Below 128 KiB, from where the C library has each block given by the kernel, and gives it back (mallopt(3),
M_MMAP_THRESHOLD): 12 us a read, and a page fault for each page of it. asyncio asks for 256 KiB."""


def read_in_blocks(transport: object) -> None:
    """Let a socket's transport read READ_BYTES at once; one that isn't asyncio's own for sockets stays as it is."""
    if isinstance(getattr(transport, "max_size", None), int):
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # selector_events has it; no stub tells
