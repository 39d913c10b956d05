"""A bundle's daemons under supervision: output forwarded, intents carried out one by one, stopping before all else."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from bottle.sidecars.children import NOT_STARTED, Child, Children
from bottle.sidecars.spawning import Spawned, spawn

GRACE_S = 1.0
LAST_WORDS_S = 1.0
MAX_LINE = 8 << 20
SIGNALS = {
    signal.SIGHUP: "reload",
    signal.SIGUSR1: "restart pipelock",
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
}


def exit_status(codes: list[int]) -> int:
    """Return the bundle's own status: a positive failure wins, an end by a signal counts as 0."""
    return max([0, *(code for code in codes if code > 0)])


class Bundle:
    """The daemons. Handlers only record what is wanted; `run` acts on it, and stopping wins over everything else."""

    def __init__(self, daemons: dict[str, dict[str, Any]], begun: dict[str, Spawned]) -> None:
        self._daemons = daemons
        self._begun = begun
        self._children = Children()
        self._running: dict[str, Child] = {}
        self._codes: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: set[str] = set()
        self._stopping = False
        self._news = asyncio.Event()

    def want(self, word: str) -> None:
        """Record an intent; the same one twice is one."""
        if word == "stop":
            self._stopping = True
        else:
            self._wanted.add(word)
        self._news.set()

    def tell(self, text: str) -> None:
        """Hand `NAME LINE` on to a daemon; one that isn't running, or takes none, misses it."""
        name, _, line = text.partition(" ")
        child = self._running.get(name)
        if child is None or child.stdin is None or not self._daemons[name].get("line"):
            tell("init", f"nobody to tell at {name[:80]!r}")
        elif child.stdin.get_write_buffer_size() > MAX_LINE:
            tell("init", f"{name} doesn't read its line; what it is told is left out")
        else:
            child.stdin.write(line.encode() + b"\n")

    async def run(self) -> int:
        """Start the daemons, act on intents until told to stop, and return the bundle's status."""
        for name in self._daemons:
            await self._start(name)
        self._children.reap()
        while not self._told_to_stop():
            await self._news.wait()
            self._news.clear()
            wanted, self._wanted = self._wanted, set()
            for word in sorted(wanted):
                if self._told_to_stop():
                    break
                await self._act(word)
        await self._stop(list(self._running))
        # Something a daemon left behind may hold its output open for ever.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_S)
        return exit_status(self._codes)

    def _told_to_stop(self) -> bool:
        return self._stopping

    async def _act(self, word: str) -> None:
        verb, _, name = word.partition(" ")
        if verb == "reload" and "egress" in self._running:
            self._running["egress"].signal(signal.SIGHUP)
        elif verb == "restart" and name in self._daemons:
            await self._stop([name])
            if not self._told_to_stop():
                await self._start(name)
        else:
            tell("init", f"nothing to do for {word[:80]!r}")

    async def _start(self, name: str) -> None:
        spec = self._daemons[name]
        try:
            begun = self._begun.pop(name) if name in self._begun else spawn(spec["argv"], spec["env"])
            child = await self._children.adopt(begun)
        except OSError as error:
            self._codes.append(NOT_STARTED)
            tell("init", f"{name} ended unexpectedly (can't be started: {error.strerror}); the others go on")
            return
        self._running[name] = child
        assert child.stdin is not None
        child.stdin.write(spec["stdin"].encode())
        if spec.get("line"):
            child.stdin.write(b"\n")
        else:
            child.stdin.close()
        for output in child.outputs:
            self._follow(self._forward(name, output))
        self._follow(self._reap(name, child))

    def _follow(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, name: str, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                tell(name, "a line was too long and is left out")
                continue
            if not line:
                return
            tell(name, line.decode("utf-8", "backslashreplace").rstrip("\n"))

    async def _reap(self, name: str, child: Child) -> None:
        code = await child.ended
        if self._running.get(name) is child:
            del self._running[name]
            child.sweep()
            self._codes.append(code)
            tell("init", f"{name} ended unexpectedly ({code}); the others go on")

    async def _stop(self, names: list[str]) -> None:
        ending = [self._running.pop(name) for name in names if name in self._running]
        for child in ending:
            child.signal(signal.SIGTERM)
        if ending:
            await asyncio.wait([child.ended for child in ending], timeout=GRACE_S)
        for child in ending:
            child.signal(signal.SIGKILL)
            self._codes.append(await child.ended)
            child.sweep()


def tell(name: str, line: str) -> None:
    """Forward one line under its daemon's name; when nobody listens any more, the end of stdin is on its way."""
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(f"{name} | {line}\n".encode())
        sys.stdout.buffer.flush()


async def supervise(daemons: dict[str, dict[str, Any]], begun: dict[str, Spawned], read: bytes) -> int:
    """Supervise until told to stop, by a signal (blocked until now), a word on stdin or its end. `read`: words read."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE)
    reader.feed_data(read)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    bundle = Bundle(daemons, begun)
    for number, word in SIGNALS.items():
        loop.add_signal_handler(number, bundle.want, word)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    async def listen() -> None:
        while line := await reader.readline():
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            if verb == "tell":
                bundle.tell(rest)
            else:
                bundle.want(f"{verb} {rest}".strip())
        bundle.want("stop")

    listening = asyncio.create_task(listen())
    status = await bundle.run()
    listening.cancel()
    return status
