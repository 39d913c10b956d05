"""A process that the kernel gives no more threads, as when a limit on them is reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

WHOLE_ADDRESS_SPACE = 1 << 47


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Have every start of a thread fail meanwhile: there is no room for the stack that it is to have."""
    before = threading.stack_size(WHOLE_ADDRESS_SPACE)
    try:
        yield
    finally:
        threading.stack_size(before)
