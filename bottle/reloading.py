"""A changed policy put into force in a running bundle: its files written, its daemons told, their word awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from bottle import second_hop
from bottle.backends.base import Backend, Place
from bottle.errors import LaunchFailed, PolicyInDoubt
from bottle.operator.live import LivePolicy, with_policy
from bottle.plan import BottlePlan
from bottle.restarting import Restarting
from opsexec.errors import OpsError
from opsexec.executor import Executor
from opsexec.steps import Step, WriteFile

CONFIRM_S = 10.0


class Reloading:
    """One bottle's. `heard` takes what egress says of its reloads."""

    def __init__(self, how: Backend, plan: BottlePlan, place: Place, ex: Executor, restarting: Restarting) -> None:
        self._how = how
        self._plan = plan
        self._place = place
        self._ex = ex
        self._restarting = restarting
        self._hop: Step | None = self._hop_file(plan)
        self._answers: asyncio.Queue[bool] = asyncio.Queue()

    def heard(self, event: dict[str, Any]) -> None:
        """Take an event of egress'."""
        if event.get("event") == "reload":
            self._answers.put_nowait(event.get("ok") is True)

    async def apply(self, policy: LivePolicy) -> None:
        """Put a policy into force. Raises OpsError when the old one stays, PolicyInDoubt when nobody knows."""
        before, after = self._plan, with_policy(self._plan, policy)
        try:
            await self._put(after)
        except PolicyInDoubt:
            raise
        except OpsError as error:
            try:
                await self._put(before)
            except OpsError as worse:
                raise PolicyInDoubt(f"a policy is half in force: {error.message}", host=self._plan.identity) from worse
            raise
        self._plan = after

    async def _put(self, plan: BottlePlan) -> None:
        steps: Sequence[Step] = self._how.route_table(plan, self._place).steps
        try:
            async with asyncio.timeout(CONFIRM_S):
                for step in steps:
                    await self._ex.run(step)
        except TimeoutError:
            text = f"the bottle's host didn't answer within {CONFIRM_S:g} s"
            raise PolicyInDoubt(text, host=self._plan.identity) from None
        hop = self._hop_file(plan)
        if hop != self._hop:
            self._hop = None  # until it is up again nothing leaves
            await self._restarting.restart(second_hop.DAEMON)
            self._hop = hop
        while not self._answers.empty():
            self._answers.get_nowait()
        self._restarting.line.send("reload")
        try:
            async with asyncio.timeout(CONFIRM_S):
                confirmed = await self._answers.get()
        except TimeoutError:
            raise LaunchFailed(f"egress didn't take the new routes within {CONFIRM_S:g} s") from None
        if not confirmed:
            raise LaunchFailed("egress couldn't read the new routes")

    def _hop_file(self, plan: BottlePlan) -> Step | None:
        """Return the step that writes the second hop's configuration, None where there is no second hop."""
        steps = self._how.route_table(plan, self._place).steps
        return next(
            (step for step in steps if isinstance(step, WriteFile) and step.path.endswith(second_hop.FILE)), None
        )
