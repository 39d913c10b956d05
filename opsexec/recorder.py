"""`Recorder`: what one run's output passes through: counted, hashed, kept in part, given to the sink at its pace."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Iterator

from opsexec.digest import StreamDigest
from opsexec.executor import TAIL_BYTES, LogSink, Stream

HIGH_WATER = 1 << 20
"""Bytes waiting for a slow sink above which the host stops reading the program's output."""

MANY = 4096
"""Blocks waiting for a slow sink above which they are packed: a block of one byte takes a hundred in a queue."""

STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


class Recorder:
    """Takes output from a host, synchronously, and passes it on to an async sink through one bounded queue.

    A host calls `feed`; when `feed` returns False it stops reading until `on_drain` is called. `limit_bytes` bounds
    both streams together; the host asks `over_limit` after feeding. `standard_digest`: see StreamDigest.
    """

    def __init__(
        self, sink: LogSink | None = None, *, limit_bytes: int | None = None, standard_digest: bool = False
    ) -> None:
        self.sink = sink
        self.limit_bytes = limit_bytes
        self.counts = [0, 0]
        self.failure: BaseException | None = None
        self.on_drain: Callable[[], None] | None = None
        self.on_failure: Callable[[], None] | None = None
        self._digest = StreamDigest(standard=standard_digest)
        self._tails: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self._kept = [0, 0]
        self._queue: deque[tuple[int, bytes]] = deque()
        self._packed: deque[tuple[array[int], bytes]] = deque()  # what came before that, see _pack
        self._waiting = 0
        self._pump: asyncio.Task[None] | None = None

    def feed(self, stream: int, data: bytes) -> bool:
        """Take a block of stream 0 (stdout) or 1 (stderr). Returns False when the sink is behind: stop reading."""
        size = len(data)
        self.counts[stream] += size
        if stream == 0:
            self._digest.update(data)
        tail = self._tails[stream]
        tail.append(data)
        kept = self._kept[stream] + size
        while kept - len(tail[0]) >= TAIL_BYTES:
            kept -= len(tail.popleft())
        self._kept[stream] = kept
        if self.sink is None:
            return True
        self._queue.append((stream, data))
        self._waiting += size
        if len(self._queue) > MANY:
            self._packed.append(_pack(self._queue))
            self._queue.clear()
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._drain(self.sink))
        return self._waiting < HIGH_WATER

    @property
    def over_limit(self) -> bool:
        """True once both streams together passed the limit."""
        return self.limit_bytes is not None and self.counts[0] + self.counts[1] > self.limit_bytes

    async def _drain(self, sink: LogSink) -> None:
        """Hand queued blocks to the sink; a sink that raises ends the run with its error."""
        try:
            for stream, data in self._blocks():
                await sink.write(STREAMS[stream], data)
                above = self._waiting >= HIGH_WATER
                self._waiting -= len(data)
                if above and self._waiting < HIGH_WATER and self.on_drain is not None:
                    self.on_drain()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the sink is the caller's code: whatever it raises is raised again in finish()
            self.failure = error
            self._queue.clear()
            self._packed.clear()
            self._waiting = 0
            self.sink = None
            if self.on_failure is not None:
                self.on_failure()
        finally:
            self._pump = None

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Take what waits off the queue, also what comes meanwhile."""
        while self._packed or self._queue:
            if self._packed:
                yield from _unpack(*self._packed.popleft())
            else:
                yield self._queue.popleft()

    @property
    def behind(self) -> bool:
        """True while the sink has not taken everything."""
        return self._pump is not None

    async def finish(self) -> None:
        """Wait until the sink has taken everything; raises what the sink raised."""
        while self._pump is not None:
            pump = self._pump
            try:
                await pump
            except asyncio.CancelledError:
                pump.cancel()
                raise
        if self.failure is not None:
            raise self.failure

    def abandon(self) -> None:
        """Stop handing anything to the sink: the run was cancelled."""
        if self._pump is not None:
            self._pump.cancel()
        self._queue.clear()
        self._packed.clear()

    def tail(self, stream: int) -> bytes:
        """Return the last TAIL_BYTES of a stream."""
        return b"".join(self._tails[stream])[-TAIL_BYTES:]

    @property
    def digest(self) -> str:
        """Of all of stdout so far: `sha256:<hex>`, or `blake3:<hex>` of what is longer than a tail."""
        return str(self._digest)

    @property
    def truncated(self) -> bool:
        """True when a tail is shorter than its stream."""
        return max(self.counts) > TAIL_BYTES


def _pack(blocks: deque[tuple[int, bytes]]) -> tuple[array[int], bytes]:
    """Return blocks as one: their sizes, those of stderr as `~size`, and all of their bytes."""
    sizes = array("i", [~len(data) if stream else len(data) for stream, data in blocks])
    return sizes, b"".join([data for _, data in blocks])


def _unpack(sizes: array[int], data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for size in sizes:
        stream, end = (1, at + ~size) if size < 0 else (0, at + size)
        yield stream, data[at:end]
        at = end
