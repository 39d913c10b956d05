"""When appended lines reach the disk for good: every line, in groups, or when the kernel likes."""

from __future__ import annotations

import os
import threading
from typing import Literal

Policy = Literal["group", "always", "never"]
GROUP_INTERVAL_S = 0.1


class Durability:
    """Runs fdatasync over one descriptor by a policy, at most once at a time.

    A failed fdatasync is final: the kernel may have dropped the pages and calls them clean from then on, so
    trying again would answer "fine" about lost lines. (https://wiki.postgresql.org/wiki/Fsync_Errors)
    """

    def __init__(self, policy: Policy, fd: int) -> None:
        self.policy = policy
        self.failure: OSError | None = None
        self._fd = fd
        self._written = 0
        self._synced = 0
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wrote(self) -> None:
        """Note one more line written; under "always" it is on disk when this returns. Raises OSError."""
        self._written += 1
        if self.policy == "group":
            if not self._dirty.is_set():
                self._dirty.set()
                if self._thread is None and not self._begin():
                    self._dirty.clear()
                    self.flush()
        elif self.policy == "always":
            self.flush()

    def _begin(self) -> bool:
        """Begin the thread; False where there is none to be had now, and each line is put on disk as it is written."""
        thread = threading.Thread(target=self._run, name="audit-fdatasync", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def flush(self) -> None:
        """Return once every line written before is on disk; waiters share one sync. Raises OSError."""
        target = self._written
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self._synced >= target:
                return
            covered = self._written
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self.failure = error
                raise
            self._synced = covered

    def move(self, fd: int) -> None:
        """Go over to the next segment's descriptor; the last is on disk, by whoever rotated: close it."""
        with self._lock:
            os.close(self._fd)
            self._fd = fd
            self._synced = self._written

    def close(self) -> None:
        """Stop the thread, put what is left on disk (not under "never"), close the file. Raises OSError."""
        self._stop.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self.policy != "never":
                self.flush()
        finally:
            os.close(self._fd)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._dirty.wait()
            self._stop.wait(GROUP_INTERVAL_S)
            self._dirty.clear()
            try:
                self.flush()
            except OSError:
                return  # kept in `failure`: the next append, barrier or close raises it
