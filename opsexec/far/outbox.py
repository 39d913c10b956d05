"""What the session has to say and the caller has not taken yet: bytes, and output still in a program's pipe."""

from __future__ import annotations

import os

from opsexec.far.frames import HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
else:
    from _collections import deque  # the module behind `collections`, which costs 2 ms of a session's start


class Pending:
    """`left` bytes that stand in the pipe `fd` and go out from there without a copy (splice(2))."""

    __slots__ = ("fd", "left")

    def __init__(self, fd: int, left: int) -> None:
        self.fd = fd
        self.left = left


class Outbox:
    """A queue of frames to file descriptor `fd`, written as far as it takes them without waiting."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = 0
        self.splices = hasattr(os, "splice")
        self._queue = deque()  # type: deque[bytes | Pending]

    def frame(self, kind: int, ref: int, payload: bytes) -> None:
        """Queue a frame."""
        self._queue.append(HEADER.pack(kind, ref, len(payload)))
        if payload:
            self._queue.append(payload)
        self.size += HEADER.size + len(payload)

    def frame_from(self, kind: int, ref: int, fd: int, size: int) -> None:
        """Queue a frame whose payload are the next `size` bytes of the pipe `fd`, which all stand in it already."""
        self._queue.append(HEADER.pack(kind, ref, size))
        self._queue.append(Pending(fd, size))
        self.size += HEADER.size + size

    def holds(self, fd: int) -> bool:
        """True while output of this pipe is still to go out from it."""
        return any(isinstance(item, Pending) and item.fd == fd for item in self._queue)

    def take_in(self, fd: int) -> None:
        """Read what is still to go out from this pipe, so that it can be closed."""
        for at, item in enumerate(self._queue):
            if isinstance(item, Pending) and item.fd == fd:
                data = b""
                while len(data) < item.left:
                    data += os.read(fd, item.left - len(data))
                self._queue[at] = data

    def flush(self) -> bool:
        """Write what goes; returns True when nothing is left. Raises OSError when the caller is gone."""
        queue = self._queue
        try:
            while queue:
                first = queue[0]
                if isinstance(first, Pending):
                    done = os.splice(first.fd, self.fd, first.left)
                    self.size -= done
                    first.left -= done
                    if not first.left:
                        queue.popleft()
                else:
                    self._write()
        except BlockingIOError:
            return False
        return True

    def _write(self) -> None:
        """Write the bytes at the head of the queue in one call."""
        queue = self._queue
        batch = []  # type: list[bytes]
        for item in queue:
            if isinstance(item, Pending) or len(batch) == 64:
                break
            batch.append(item)
        done = os.writev(self.fd, batch)
        self.size -= done
        for item in batch:
            if done < len(item):
                queue[0] = item[done:]
                return
            done -= len(item)
            queue.popleft()
