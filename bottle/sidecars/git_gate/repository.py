"""One declared repository in the gate: its steps through the executor, one at a time where they touch the mirror."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bottle.sidecars.git_gate.config import GateConfig
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.executor import Executor
from opsexec.secret import Secret
from opsexec.steps.git import MIRROR, SCANNER_VERB, GitFetch, GitForward, GitScan


class Refusal(Exception):
    """What the gate won't do, and why, in words for the person at the other end."""


def ceiling(places: Mapping[str, Path], scanner: str) -> CapabilitySet:
    """Return what the gate's executor may do: the three steps, on the declared repositories, and nothing else."""
    grants = [f"exec:{shlex.quote(scanner)} {SCANNER_VERB}"] if places else []
    for name, place in places.items():
        grants += [f"git.fetch:{name}", f"git.scan:{name}", f"git.forward:{name}"]
        grants += [f"fs.read:{place}/**", f"fs.write:{place}/**"]
    return CapabilitySet.of(*grants) if grants else CapabilitySet.nothing()


class Repository:
    """The mirror of one upstream."""

    def __init__(self, name: str, place: Path, ex: Executor, config: GateConfig) -> None:
        self.name = name
        self.mirror = place / MIRROR
        self._place = str(place)
        self._ex = ex
        self._scanner = config.gitleaks
        self._known = Secret(json.dumps(dict(config.known))) if config.known else None
        self._limits = config.limits
        self._alone = asyncio.Lock()
        self._refreshed_at = float("-inf")

    async def refresh(self, within_s: float = 0.0) -> None:
        """Bring the mirror up to date, unless that began at most `within_s` seconds ago. Raises Refusal if it can't."""
        wanted = time.monotonic() - within_s
        async with self.alone():
            if self._refreshed_at >= wanted:
                return
            began = time.monotonic()
            await self._run(GitFetch(repository=self.name, place=self._place, timeout_s=self._limits.fetch_s))
            self._refreshed_at = began

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the mirror: nobody refreshes it or pushes to it meanwhile. Raises Refusal where that takes too long."""
        try:
            async with asyncio.timeout(self._limits.fetch_s):
                await self._alone.acquire()
        except TimeoutError:
            raise Refusal("the gate is busy with another push or fetch of this repository") from None
        try:
            yield
        finally:
            self._alone.release()

    async def accept(self, quarantine: str, updates: tuple[str, ...]) -> dict[str, Any]:
        """Scan what is in quarantine and forward it; returns the scan's verdict. Raises Refusal with every reason.

        A push that only deletes brings nothing, and git makes no quarantine for it: an empty one stands in.
        """
        if not quarantine:
            nothing = self.mirror / "objects" / "nothing"
            nothing.mkdir(exist_ok=True)
            quarantine = str(nothing)
        step = GitScan(
            repository=self.name,
            place=self._place,
            quarantine=quarantine,
            updates=updates,
            scanner=self._scanner,
            known=self._known,
            timeout_s=self._limits.scan_s,
        )
        verdict = await self._run(step)
        if verdict.get("accepted") is not True:
            reasons = verdict.get("reasons") or ["the scan gave no reason"]
            raise Refusal("\n".join(str(reason) for reason in reasons))
        await self._run(
            GitForward(
                repository=self.name,
                place=self._place,
                quarantine=quarantine,
                updates=updates,
                timeout_s=self._limits.forward_s,
            )
        )
        return verdict

    async def _run(self, step: GitFetch | GitScan | GitForward) -> dict[str, Any]:
        try:
            out = await self._ex.run(step)
        except OpsError as error:
            raise Refusal(error.message) from error
        if not isinstance(out.value, dict):
            raise Refusal("the gate got no answer from its own step")
        return out.value
