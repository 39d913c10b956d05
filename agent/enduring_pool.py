"""The agent's threads for calls that block: where the kernel gives it no more of them, those it has do the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class EnduringPool(ThreadPoolExecutor):
    """A pool of which one thread is there from the beginning. Raises RuntimeError where not even that can be had."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="agent")
        self.submit(int).result()

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # the call waits in line already, so that nothing may be raised for it
            if not self._threads:
                raise
