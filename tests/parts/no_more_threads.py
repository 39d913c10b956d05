"""A process that the kernel gives no more threads, as when a limit on them is reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MORE_THAN_ANY = 1 << 62
"""Bytes: no machine has so many addresses."""


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Have every start of a thread fail meanwhile: there is no room for the stack that it is to have."""
    before = threading.stack_size(MORE_THAN_ANY)
    try:
        yield
    finally:
        threading.stack_size(before)
