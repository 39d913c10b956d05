"""Keeping a mirror small: many packs become one, and what no ref leads to goes. Never while anybody waits for it.

What is kept and dropped follows from the mirror's refs alone, which are the upstream's; an agent's pushes and fetches
decide no more than that there was something to do. It gives way at once to whoever wants the mirror, works a tenth of
the time at most, and within bounds of memory, time and room.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.litter import remove_unfinished
from bottle.sidecars.git_gate.said import say
from opsexec.far.git_run import Declared, argv, environment, said

MAX_LOOSE = 6000
"""Objects that are files of their own, from which on there is something to do: about what git goes by."""

SLACK_BYTES = 64 << 20
"""So much a mirror may grow beyond twice what it was when it was last kept: of a branch that was rewritten."""

REST = 10
"""How many times as long as it worked it leaves a mirror alone."""

CPU_S = 60
BOUNDED = 'ulimit -v "$1"; ulimit -t "$2"; ulimit -c 0; shift 2; exec nice -n 19 "$@"'
REPACK = ("-c", "pack.threads=1", "-c", "pack.windowMemory=64m", "-c", "core.packedGitLimit=256m",
          "repack", "-a", "-d", "-l", "-q", "--window=0")  # fmt: skip
"""Packs are joined as they are: nobody looks for deltas, which is what takes long and what content can make longer."""

PRUNE = ("prune", "--expire=now")


@dataclass(frozen=True)
class Size:
    """What a mirror holds: packs, loose objects as git estimates them, bytes of packs."""

    packs: int
    loose: int
    bytes: int


def size_of(mirror: Path) -> Size:
    """Return what is there now; one directory in 256 of the loose objects is counted, as git does."""
    sizes = []
    for path in mirror.glob("objects/pack/*.pack"):
        with contextlib.suppress(FileNotFoundError):  # it was joined with others meanwhile
            sizes.append(path.stat().st_size)
    try:
        loose = len(os.listdir(mirror / "objects/17"))
    except FileNotFoundError:
        loose = 0
    return Size(len(sizes), loose * 256, sum(sizes))


class Upkeep:
    """The upkeep of one mirror. `calm_s`: how long nobody may have wanted it before it is looked after."""

    def __init__(self, mirror: Path, limits: Limits) -> None:
        self._mirror = mirror
        self._limits = limits
        self._kept: int | None = None
        self._not_before = 0.0
        self._wanted = 0
        self._timer: asyncio.TimerHandle | None = None
        self._working: asyncio.Task[None] | None = None

    async def give_way(self) -> None:
        """Somebody wants the mirror: end what is under way, and begin nothing until `again` is called as often."""
        self._wanted += 1
        self._stop_timer()
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait([self._working])
            self._working = None

    def again(self) -> None:
        """Somebody is done with it."""
        self._wanted -= 1
        if not self._wanted:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._limits.calm_s, self._begin)

    @asynccontextmanager
    async def off(self) -> AsyncIterator[None]:
        """Hold it off as long as this lasts."""
        try:
            await self.give_way()
            yield
        finally:
            self.again()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._timer = None
        if self._working is None and time.monotonic() >= self._not_before and self._due():
            self._working = asyncio.create_task(self._work())

    def _due(self) -> bool:
        try:
            now = size_of(self._mirror)
            room = os.statvfs(self._mirror)
        except OSError:  # it isn't there yet, or changes under our eyes
            return False
        if now.bytes + SLACK_BYTES // 4 > room.f_bavail * room.f_frsize:
            return False  # it is written a second time before it goes
        if self._kept is None:
            self._kept = now.bytes  # as it came from the upstream, with nothing in it that could go
        return now.packs > self._limits.packs or now.loose > MAX_LOOSE or now.bytes > 2 * self._kept + SLACK_BYTES

    async def _work(self) -> None:
        began = time.monotonic()
        before = size_of(self._mirror)
        try:
            status, text = 0, ""
            for words in (REPACK, PRUNE):
                status, text = await self._git(words)
                if status != 0:
                    break
            after = size_of(self._mirror)
            say({"event": "git-upkeep", "repository": self._mirror.parent.name, "status": status, "said": text[-500:],
                 "packs": [before.packs, after.packs], "bytes": [before.bytes, after.bytes]})  # fmt: skip
            self._kept = after.bytes
        except OSError as error:
            say({"event": "git-upkeep", "repository": self._mirror.parent.name, "said": str(error.strerror)})
        finally:
            ended = time.monotonic()
            self._not_before = ended + max(self._limits.calm_s, REST * (ended - began))
            self._working = None

    async def _git(self, words: tuple[str, ...]) -> tuple[int, str]:
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", BOUNDED, "sh", str(self._limits.memory_bytes >> 10), str(CPU_S)),
                *argv(*words),
                env=environment(Declared(str(self._mirror.parent))),
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        )
        ended = False
        try:
            process = await asyncio.shield(starting)
            _, text = await process.communicate()
            ended = process.returncode == 0
            return process.returncode or 0, said(text)
        finally:
            process = await starting  # broken off while it starts, it is at work all the same
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if not ended:  # old packs go once the new one is there whole: what is unfinished is nobody's
                remove_unfinished(self._mirror)
