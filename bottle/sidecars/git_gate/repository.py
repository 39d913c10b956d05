"""One declared repository in the gate: its steps through the executor, one at a time where they touch the mirror."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bottle.sidecars.git_gate.ahead import Ahead, Held
from bottle.sidecars.git_gate.config import GateConfig
from bottle.sidecars.git_gate.litter import remove_incoming, remove_unfinished
from bottle.sidecars.git_gate.upkeep import Upkeep
from opsexec.capability import CapabilitySet, clean_path
from opsexec.errors import OpsError
from opsexec.executor import Executor, RunOutput
from opsexec.secret import Secret
from opsexec.steps.git import MIRROR, SCANNER_VERB, GitFetch, GitForward, GitScan

HANG_UP_S = 1.0

MAX_READY = 2
"""Scanners that wait at the same time in one gate: each takes 80 MB."""


class Refusal(Exception):
    """What the gate won't do, and why, in words for the person at the other end."""


def ceiling(places: Mapping[str, Path], scanner: str) -> CapabilitySet:
    """Return what the gate's executor may do: the three steps, on the declared repositories, and nothing else."""
    grants = [f"exec:{shlex.quote(scanner)} {SCANNER_VERB}"] if places else []
    for name, place in places.items():
        grants += [f"git.fetch:{name}", f"git.scan:{name}", f"git.forward:{name}"]
        grants += [f"fs.read:{place}/**", f"fs.write:{place}/**"]
    return CapabilitySet.of(*grants) if grants else CapabilitySet.nothing()


def declared(repositories: Mapping[str, Repository], name: str) -> Repository:
    """Return the repository that a client names, with `.git` or without; raises Refusal where it isn't declared."""
    found = repositories.get(name) or repositories.get(name.removesuffix(".git"))
    if found is None:
        raise Refusal("that repository isn't declared for this bottle")
    return found


class Repository:
    """The mirror of one upstream. `waiting`: the scanners of the whole gate that wait for a push."""

    def __init__(self, name: str, place: Path, ex: Executor, config: GateConfig, waiting: set[Ahead]) -> None:
        self.name = name
        self.mirror = place / MIRROR
        self._place = str(place)
        self._ex = ex
        self._scanner = config.gitleaks
        self._known = Secret(json.dumps(dict(config.known))) if config.known else None
        self._limits = config.limits
        self._alone = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._littered = True
        self._refreshed_at = float("-inf")
        self._ready: Ahead | None = None
        self._held: Held | None = None
        self._closing: asyncio.Task[None] | None = None
        self._pushes = 0
        self._waiting = waiting
        self._leaving: set[asyncio.Task[None]] = set()
        self._upkeep = Upkeep(self.mirror, config.limits)

    async def refresh(self, within_s: float = 0.0, *, hold: bool = False) -> None:
        """Bring the mirror up to date, unless that began at most `within_s` seconds ago. Raises Refusal if it can't.

        `hold`: a push follows, for which the login at the upstream is kept.
        """
        wanted = time.monotonic() - within_s
        async with self.alone():
            if self._refreshed_at >= wanted:
                return
            began = time.monotonic()
            await self._tidy()
            self._littered = True  # unless the fetch ends well
            if hold and (self._held is None or not self._held.holding):
                await self._fetch_and_hold()
            else:
                await self._run(GitFetch(repository=self.name, place=self._place, timeout_s=self._limits.fetch_s))
            self._refreshed_at = began
            self._littered = False

    async def _tidy(self) -> None:
        """Remove what a fetch or a setting of refs left that was ended by force; the caller holds the mirror."""
        if self._littered:
            if self._closing is not None:
                await asyncio.wait([self._closing])
            remove_unfinished(self.mirror)

    async def _fetch_and_hold(self) -> None:
        if self._closing is not None:
            await asyncio.wait([self._closing])  # two at a time would take each other's place away
        limits = self._limits
        until_s = limits.fetch_s + limits.request_s
        held = Held(self._ex, GitFetch(repository=self.name, place=self._place, hold=True, timeout_s=until_s))
        try:
            async with asyncio.timeout(limits.fetch_s):
                await held.refreshed()
        except TimeoutError:
            self._closing = self.dismiss(held)
            raise Refusal("the upstream took too long to answer") from None
        except OpsError as error:
            raise Refusal(error.message) from error
        except asyncio.CancelledError:
            self._closing = self.dismiss(held)
            raise
        self._held = held
        asyncio.get_running_loop().call_later(limits.line_s, self._hang_up, held)

    def _hang_up(self, held: Held) -> None:
        """Close a login that no push uses."""
        if self._held is held and not self._pushes:
            self._held = None
            self._closing = self.dismiss(held)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the mirror: nobody refreshes it or pushes to it meanwhile. Raises Refusal where that takes too long."""
        async with self._upkeep.off():
            try:
                async with asyncio.timeout(self._limits.fetch_s):
                    await self._alone.acquire()
            except TimeoutError:
                raise Refusal("the gate is busy with another push or fetch of this repository") from None
            try:
                yield
            finally:
                self._alone.release()

    def require_room(self) -> None:
        """Raise Refusal where there is no room for a push: better said before than found out in the middle of it."""
        room = os.statvfs(self.mirror)
        free, whole = (blocks * room.f_frsize >> 20 for blocks in (room.f_bavail, room.f_blocks))
        if free < self._limits.room_bytes >> 20:
            begin = "started again, the bottle begins with an empty gate"
            raise Refusal(f"the gate has no room left for a push ({free} MiB of {whole} MiB); {begin}")

    async def take_turn(self) -> None:
        """Wait until no other push to this mirror is under way: a quarantine that is there is this one's, or nobody's.

        Each call is followed by one of `end_turn`, once the push's git and its scan have ended.
        """
        try:
            await self._upkeep.give_way()
            await self._turn.acquire()
        except asyncio.CancelledError:
            self._upkeep.again()
            raise

    def end_turn(self) -> None:
        """Remove what the push left, and let the next one in."""
        self._littered = True
        remove_incoming(self.mirror)
        self._turn.release()
        self._upkeep.again()

    def expect(self) -> None:
        """Start a scanner for the push that a client has announced, unless enough of them wait already."""
        if self._ready is not None or len(self._waiting) >= MAX_READY:
            return
        ready_s = self._limits.ready_s
        ready = Ahead(self._ex, self._scan(None, (), ready_s))
        self._ready = ready
        self._waiting.add(ready)
        asyncio.get_running_loop().call_later(ready_s, self._expire, ready)

    def _expire(self, ready: Ahead) -> None:
        if self._ready is ready:
            self._ready = None
            self._waiting.discard(ready)
            self.dismiss(ready)

    def _taken(self) -> Ahead | None:
        """Take the scanner that waits; None where there is none, or it has ended meanwhile."""
        ready, self._ready = self._ready, None
        if ready is None:
            return None
        self._waiting.discard(ready)
        if ready.waiting:
            return ready
        self.dismiss(ready)
        return None

    def dismiss(self, ahead: Ahead | Held) -> asyncio.Task[None]:
        """End a step that was begun for nothing; returns its end."""
        task = asyncio.create_task(ahead.leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    def announce(self, updates: tuple[str, ...]) -> Ahead | None:
        """Log in at the upstream for a push whose commands are known, unless a login is held for it.

        Returns None where no step can hold them. Each call is followed by one of `over`.
        """
        self._pushes += 1
        line = self._held is not None and self._held.holding
        try:
            return Ahead(self._ex, self._forward(None, updates, line=line)) if updates else None
        except OpsError:
            return None  # what is wrong with them is said when they are scanned

    def over(self, forward: Ahead | None) -> None:
        """A push is over: end what was begun for it."""
        self._pushes -= 1
        if forward is not None and forward.waiting:
            self.dismiss(forward)
        if self._held is not None:
            # Not at once: its end takes time that the client would wait for.
            asyncio.get_running_loop().call_later(HANG_UP_S, self._hang_up, self._held)

    async def aclose(self) -> None:
        """End what waits."""
        await self._upkeep.give_way()
        if self._ready is not None:
            self._expire(self._ready)
        if self._held is not None:
            self.dismiss(self._held)
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def accept(self, quarantine: str, updates: tuple[str, ...], forward: Ahead | None = None) -> dict[str, Any]:
        """Scan what is in quarantine and forward it; returns the scan's verdict. Raises Refusal with every reason.

        A push that only deletes brings nothing, and git makes no quarantine for it: an empty one stands in.
        """
        if not quarantine:
            nothing = self.mirror / "objects" / "nothing"
            nothing.mkdir(exist_ok=True)
            quarantine = str(nothing)
        quarantine = clean_path(quarantine)
        step = self._scan(quarantine, updates)  # also where a scanner waits: a push that no step can hold is refused
        verdict = await self._run(self._taken() or step, quarantine, updates)
        if verdict.get("accepted") is not True:
            reasons = verdict.get("reasons") or ["the scan gave no reason"]
            raise Refusal("\n".join(str(reason) for reason in reasons))
        last: Ahead | GitForward = self._forward(quarantine, updates)
        if forward is not None and forward.waiting and forward.step.updates == updates:
            last = forward
        await self._run(last, quarantine, updates)
        return verdict

    def _scan(self, quarantine: str | None, updates: tuple[str, ...], waits_s: float = 0.0) -> GitScan:
        return GitScan(
            repository=self.name,
            place=self._place,
            quarantine=quarantine,
            updates=updates,
            scanner=self._scanner,
            known=self._known,
            timeout_s=self._limits.scan_s + waits_s,
        )

    def _forward(self, quarantine: str | None, updates: tuple[str, ...], line: bool = False) -> GitForward:
        limits = self._limits
        waits_s = limits.request_s if quarantine is None else 0.0
        return GitForward(
            repository=self.name,
            place=self._place,
            quarantine=quarantine,
            updates=updates,
            line=line,
            timeout_s=limits.forward_s + waits_s,
        )

    async def _run(
        self, work: GitFetch | GitScan | GitForward | Ahead, quarantine: str = "", updates: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        try:
            out: RunOutput = await (work.go(quarantine, updates) if isinstance(work, Ahead) else self._ex.run(work))
        except OpsError as error:
            raise Refusal(error.message) from error
        if not isinstance(out.value, dict):
            raise Refusal("the gate got no answer from its own step")
        return out.value
