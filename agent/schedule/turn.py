"""One turn of a schedule: its steps in order, each judged by what its owner is granted now.

A turn can be taken up by another agent at any point: a step has one run id for ever, and a run that has a record is
followed, not started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from agent.asker import LAYER, Asker
from agent.ceiling import effective
from agent.detached import Starter, end_of, request_digest
from agent.marked_host import MarkedHost, new_mark
from agent.say import say
from agent.schedule.model import FAMILIES, Ended, Schedule, State, Turn
from opsexec.audit import BadRecord
from opsexec.capability import CapabilitySet
from opsexec.errors import AuditUnavailable, OpsError, StepFailed
from opsexec.host_executor import HostExecutor
from opsexec.steps.process import Process
from opsexec.steps.registry import brief

if TYPE_CHECKING:
    from agent.desk import Desk
    from opsexec.handlers.registry import Handler
    from opsexec.steps.base import Step

AGAIN_S = 0.1
"""Seconds between two askings of a run to end: one that is still starting can't be told yet."""

Answer = TypeVar("Answer")


class ScheduledExecutor(HostExecutor):
    """Admits each step by the grants its owner holds at that moment, narrowed as the schedule is.

    Its runs are called `<run>-<number>`, from `first` on.
    """

    def __init__(
        self, desk: Desk, owner: str, listener: str, narrowed: CapabilitySet | None, run: str, first: int = 0
    ) -> None:
        host = MarkedHost(desk.host, new_mark())
        nothing = CapabilitySet.nothing()
        super().__init__(host, nothing, desk.audit, principal=owner, listener=listener, layer=LAYER)
        self._desk = desk
        self._narrowed = narrowed
        self._turn = run
        self._count = first

    def _handler(self, step: Step) -> Handler:
        if step.family not in FAMILIES:
            raise StepFailed(f"a {type(step).__name__} step can't be scheduled", host=self.host)
        return super()._handler(step)

    def _admit(self, step: Step) -> tuple[str, dict[str, Any]]:
        self._capabilities = effective(self._desk.ceiling.grants(self._principal), self._narrowed, step)
        self._next_run = f"{self._turn}-{self._count}"
        self._count += 1
        return super()._admit(step)


class TurnRun:
    """A turn under way. `save` writes its schedule down; raises OSError."""

    def __init__(self, desk: Desk, schedule: Schedule, turn: Turn, save: Callable[[], None]) -> None:
        self._desk = desk
        self._schedule = schedule
        self._turn = turn
        self._save = save
        self._end = asyncio.Event()
        self._why = ""
        self.listener = f"schedule:{schedule.name}@{turn.due_text}"

    def end(self, why: str) -> None:
        """End what it does, with all that was started; `run` says so."""
        self._why = self._why or why
        self._end.set()

    async def run(self) -> Ended:
        """Do what is left of the turn, and put its outcome in the audit.

        Raises AuditUnavailable and OSError, after which it may be called again.
        """
        turn = self._turn
        if not turn.announced:
            self._record("allow", self._cause())
            turn.announced = True
            self._save()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        state: State = "ok"
        detail = "ended well"
        code: str | None = None
        try:
            if turn.begun:
                self._lost()
            if self._schedule.asked.runbook is not None:
                detail = await self._runbook(self._schedule.asked.runbook)
            else:
                detail = await self._steps()
        except OpsError as error:
            if _wants_an_audit(error):
                raise
            state, detail, code = ("lost" if turn.begun else "failed"), error.message, error.code
        except asyncio.CancelledError:
            if turn.begun:
                self._stopped(loop.time() - begun)
            raise
        return self._close(state, detail, code, loop.time() - begun)

    def _stopped(self, duration_s: float) -> None:
        """The agent stops, and with it what can't outlive it. Where that can't be recorded, the next agent says so."""
        schedule = self._schedule
        try:
            self._close("failed", "the agent was stopped, and with it this turn", "stopped", duration_s)
            schedule.turns.remove(self._turn)
            self._save()
        except (OpsError, OSError) as error:
            say(f"schedule {schedule.name}: its end is not recorded: {error}")

    def _cause(self) -> str:
        turn, name = self._turn, self._schedule.name
        if turn.cause == "asked":
            return f"schedule {name}: asked for by {turn.asked_by}"
        return f"schedule {name}: {'missed at' if turn.cause == 'missed' else 'due at'} {turn.due_text}"

    def _close(self, state: State, detail: str, code: str | None, duration_s: float) -> Ended:
        """Put the turn's outcome in the audit."""
        turn = self._turn
        outcome: dict[str, Any] = {
            "exit_code": 0 if state == "ok" else None,
            "signal": None,
            "duration_s": round(duration_s, 6),
            "steps_done": turn.done,
        }
        if code is not None:
            outcome |= {"error": code, "detail": brief(detail[:1000])}
        desk = self._desk
        desk.audit.append({**self._line(), "outcome": outcome})
        detail = brief(detail[:1000])  # it is kept, as JSON: a host's words may be no text
        return Ended(run=turn.run, due=turn.due, state=state, detail=detail, at=desk.schedules.clock.now())

    def _line(self) -> dict[str, Any]:
        owner = self._schedule.owner
        who = {"host": self._desk.name, "listener": self.listener, "principal": owner}
        return {**who, "layer": LAYER, "run": self._turn.run}

    def _record(self, decision: str, why: str) -> None:
        turn = self._turn
        step = {"type": "schedule.turn", "name": self._schedule.name, "due": turn.due_text, "cause": turn.cause}
        self._desk.audit.append({**self._line(), "step": step, "decision": decision, "reason": brief(why)})

    def _lost(self) -> None:
        raise StepFailed("the agent ended while this was under way; how far it came is unknown")

    async def _steps(self) -> str:
        turn, steps = self._turn, self._schedule.asked.steps
        for number in range(turn.done, len(steps)):
            step = steps[number]
            try:
                if self._end.is_set():
                    raise StepFailed(self._why)
                await self._one(step, f"{turn.run}-{number}")
            except OpsError as error:
                error.message = f"step {number + 1} of {len(steps)}: {error.message}"
                raise
            turn.done = number + 1  # once this is on disk the run's own record may go
            self._save()
            self._desk.detached.spared.discard(f"{turn.run}-{number}")
        return f"{len(steps)} steps ended well"

    async def _one(self, step: Step, run: str) -> None:
        """Do one step; raises what it ended in."""
        desk, owner = self._desk, self._schedule.owner
        asker = Asker(owner, self.listener, desk.ceiling.grants(owner))
        if isinstance(step, Process) and step.creates is None:
            await self._detached(asker, step, run)
            return
        turn, schedule = self._turn, self._schedule
        executor = ScheduledExecutor(desk, owner, self.listener, schedule.narrowed(), turn.run, turn.done)
        output = await self._alone(asker, lambda: executor.run_streaming(step))
        output.check()

    async def _alone(self, asker: Asker, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Do what ends with this agent; that it has begun is written down before it does."""
        turn = self._turn
        with self._desk.slot(asker):
            turn.begun = True
            try:
                self._save()
            except OSError:
                turn.begun = False
                raise
            try:
                answer = await self._unless_ended(work())
            except OpsError as error:
                turn.begun = _wants_an_audit(error)
                raise
        turn.begun = False
        return answer

    async def _detached(self, asker: Asker, step: Step, run: str) -> None:
        """Start a program that outlives this agent, or take up the one that was started, and wait for its end."""
        desk = self._desk
        detached = desk.detached
        detached.spared.add(run)
        known = detached.store.record(run)
        if known is None:
            held = effective(asker.grants, self._schedule.narrowed(), step)
            starter = Starter(desk.host, held, desk.audit, asker, run, detached.store)
            try:
                with desk.slot(asker):
                    await starter.start(step, run, desk.config.limits)
            finally:
                known = detached.store.record(run)
                if known is not None and not detached.store.is_settled(run):
                    detached.watch(known)
        elif (known.principal, known.request) != (asker.principal, request_digest(step)):
            raise StepFailed(f"the run {run} is another's")
        status = await self._told_to_end(run, asyncio.ensure_future(detached.ended(run)))
        end = end_of(run, status)
        if isinstance(end, OpsError):
            raise StepFailed(self._why) if self._end.is_set() else end
        if end.exit_code != 0:
            raise StepFailed(f"ended by {end.signal}" if end.signal else f"exit status {end.exit_code}")

    async def _told_to_end(self, run: str, ended: asyncio.Future[Answer]) -> Answer:
        """Wait for a detached run; once this turn is to end, tell the run so until it has."""
        ending = asyncio.ensure_future(self._end.wait())
        try:
            both: set[asyncio.Future[Any]] = {ended, ending}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            while not ended.done():
                await asyncio.to_thread(self._desk.detached.store.end_runner, run)
                await asyncio.wait({ended}, timeout=AGAIN_S)
            return ended.result()
        finally:
            ending.cancel()
            ended.cancel()

    async def _unless_ended(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for what this agent does itself; raises StepFailed once this turn is to end, and it has."""
        task = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._end.wait())
        try:
            both: set[asyncio.Future[Any]] = {task, ending}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise StepFailed(self._why)
        return task.result()

    async def _runbook(self, text: str) -> str:
        from agent.schedule.runbooks import run_runbook

        turn, schedule, desk = self._turn, self._schedule, self._desk
        if turn.done:
            return "ended well, before the agent did"
        asker = Asker(schedule.owner, self.listener, desk.ceiling.grants(schedule.owner))

        def opened(narrowed: CapabilitySet) -> ScheduledExecutor:
            own = schedule.narrowed()
            held = narrowed if own is None else narrowed & own
            return ScheduledExecutor(desk, schedule.owner, self.listener, held, turn.run)

        detail = await self._alone(asker, lambda: run_runbook(text, desk.name, opened))
        turn.done = 1
        self._save()
        return detail


def _wants_an_audit(error: OpsError) -> bool:
    """True for what passes once there is an audit again: no audit, no turn, and none is given up for it."""
    return isinstance(error, AuditUnavailable) and not isinstance(error, BadRecord)
