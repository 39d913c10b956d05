"""The bundle's supervisor: starts the daemons a bottle needs, forwards their output, restarts or stops them as told.

Its stdin is the operator's line to the bundle: first one JSON object, `{"daemons": {name: {"argv", "env", "stdin"}}}`,
then a word a line: `reload`, `restart NAME`, `stop`. The end of stdin is the end of the launcher, and so of the bundle.
Signals say the same: SIGHUP reloads egress, SIGUSR1 restarts pipelock, SIGTERM and SIGINT stop everything.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

GRACE_S = 1.0
MAX_CONFIG = 8 << 20
LINE = 1 << 20


def exit_status(codes: list[int]) -> int:
    """Return the bundle's own status: a positive failure wins, an end by a signal counts as 0."""
    return max([0, *(code for code in codes if code > 0)])


class Bundle:
    """The daemons. Handlers only record what is wanted; `run` acts on it, and stopping wins over everything else."""

    def __init__(self, daemons: dict[str, dict[str, Any]]) -> None:
        self._daemons = daemons
        self._running: dict[str, asyncio.subprocess.Process] = {}
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

    async def run(self) -> int:
        """Start the daemons, act on intents until told to stop, and return the bundle's status."""
        for name in self._daemons:
            await self._start(name)
        while not self._told_to_stop():
            await self._news.wait()
            self._news.clear()
            wanted, self._wanted = self._wanted, set()
            for word in sorted(wanted):
                if self._told_to_stop():
                    break
                await self._act(word)
        await self._stop(list(self._running))
        for task in list(self._tasks):
            await task
        return exit_status(self._codes)

    def _told_to_stop(self) -> bool:
        return self._stopping

    async def _act(self, word: str) -> None:
        verb, _, name = word.partition(" ")
        if verb == "reload" and "egress" in self._running:
            self._running["egress"].send_signal(signal.SIGHUP)
        elif verb == "restart" and name in self._daemons:
            await self._stop([name])
            await self._start(name)
        else:
            tell("init", f"nothing to do for {word[:80]!r}")

    async def _start(self, name: str) -> None:
        spec = self._daemons[name]
        process = await asyncio.create_subprocess_exec(
            *spec["argv"],
            env=spec["env"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE,
        )
        self._running[name] = process
        assert process.stdin is not None
        process.stdin.write(spec["stdin"].encode())
        process.stdin.close()
        self._follow(self._forward(name, process.stdout))
        self._follow(self._forward(name, process.stderr))
        self._follow(self._reap(name, process))

    def _follow(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                tell(name, "a line was too long and is left out")
                continue
            if not line:
                return
            tell(name, line.decode("utf-8", "backslashreplace").rstrip("\n"))

    async def _reap(self, name: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        expected = self._running.get(name) is not process
        if not expected:
            del self._running[name]
            self._codes.append(code)
            tell("init", f"{name} ended unexpectedly ({code}); the others go on")

    async def _stop(self, names: list[str]) -> None:
        ending = {name: self._running.pop(name) for name in names if name in self._running}
        for process in ending.values():
            if process.returncode is None:
                process.terminate()
        for process in ending.values():
            try:
                async with asyncio.timeout(GRACE_S):
                    self._codes.append(await process.wait())
            except TimeoutError:
                process.kill()
                self._codes.append(await process.wait())


def tell(name: str, line: str) -> None:
    """Forward one line under its daemon's name."""
    sys.stdout.write(f"{name} | {line}\n")
    sys.stdout.flush()


async def main() -> int:
    """Read the configuration, then supervise."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_CONFIG)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    bundle = Bundle(json.loads(await reader.readline())["daemons"])
    for number, word in (
        (signal.SIGHUP, "reload"),
        (signal.SIGUSR1, "restart pipelock"),
        (signal.SIGTERM, "stop"),
        (signal.SIGINT, "stop"),
    ):
        loop.add_signal_handler(number, bundle.want, word)

    async def listen() -> None:
        while line := await reader.readline():
            bundle.want(line.decode("utf-8", "replace").strip())
        bundle.want("stop")

    listening = asyncio.create_task(listen())
    status = await bundle.run()
    listening.cancel()
    return status


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
