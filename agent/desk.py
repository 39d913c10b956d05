"""Everything that requests share: who may do what now, the audit, the machine, and what runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.asker import LAYER, Asker
from agent.bottle_turns import Turns
from agent.ceiling import Ceiling, deciding, effective, still_admits
from agent.detached import Detached
from agent.events.containers import Containers
from agent.events.hub import Hub
from agent.events.services import Services
from agent.marked_host import new_mark
from agent.refusals import BoundedRefusals
from agent.schedule.keeper import Keeper
from agent.schedule.model import SCHEDULED
from agent.tty.consent import oversees
from agent.tty.live import Terminals
from opsexec.errors import CapabilityDenied, LimitExceeded, OpsError, UsageError
from opsexec.executor import AuditSink
from opsexec.far.facts import runtime_dir
from opsexec.hosts.local import LocalHost
from opsexec.steps.events import EVENT_NAMES, Events
from opsexec.steps.registry import printable, redact

if TYPE_CHECKING:
    from agent.config import Config
    from opsexec.capability import CapabilitySet
    from opsexec.steps.base import Step

REMEMBERED_RUNS = 50_000
READS_AT_ONCE = 2
"""Files and trees that one principal's steps may read at once."""


class ActiveRun:
    """A run whose caller is connected. `attenuation`: what that caller narrowed itself to; `held`: what judges it."""

    def __init__(
        self, run: str, asker: Asker, step: Step, attenuation: CapabilitySet | None, held: CapabilitySet
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.run = run
        self.principal = asker.principal
        self.listener = asker.listener
        self.asks_consent: bool | None = None
        """Of a terminal: whether somebody was asked for it. None: nobody ever is."""
        self._asked_for = (attenuation, step)
        self._held = held
        self.mark = new_mark()
        self.overseers: frozenset[str] = frozenset()
        """Who on this host was asked for consent: they may watch it and end it."""
        self.begun = time.time()
        self.ended_by: OpsError | None = None
        self.over = asyncio.Event()
        self._task = task

    @cached_property
    def step(self) -> dict[str, Any]:
        """The step as the audit has it."""
        return redact(self._asked_for[1])

    def lost_its_grant(self, ceiling: Ceiling, always_ask: bool) -> str | None:
        """Return why it would not begin under this ceiling, as it did under an earlier one; None when it would."""
        grants = ceiling.grants(self.principal)
        if not still_admits(grants, *self._asked_for):
            return f"{self.principal} holds no grant for it any more"
        asks_on = _asks_on(self._asked_for[1])
        if asks_on is not None and effective(grants, *self._asked_for) != self._held:
            return f"{asks_on}, and the grant it began under is another now"
        if self.asks_consent is False and (always_ask or deciding(grants, *self._asked_for)[0].asks_consent):
            return "its grant asks for consent now, and nobody was asked"
        return None

    def end(self, why: OpsError) -> None:
        """End it and its process tree; its caller is told why."""
        if self.ended_by is None:
            self.ended_by = why
            self._task.cancel()


def _asks_on(step: Step) -> str | None:
    """Return why a step's grant is held to more than its needs name, as long as it goes on; None where it isn't."""
    if step.family in ("sync", "sandbox", "containers") or bool(getattr(step, "recursive", False)):
        return "it works on a tree, entry by entry"
    if isinstance(step, Events) and "runs" in (step.names or EVENT_NAMES):
        return "it tells of the runs that its grant lets it read"
    return None


class Follower:
    """Who reads a run, or its recording, while they are connected. `admits`: why they may; None for who may not."""

    def __init__(self, asker: Asker, run: str, verb: str, admits: Callable[[Asker], str | None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.asker = asker
        self.step = {"type": verb, "run": run}
        self.admits = admits
        self.ended_by: OpsError | None = None
        self._task = task

    def end(self, why: OpsError) -> None:
        """Let them read no more; they are told why."""
        if self.ended_by is None:
            self.ended_by = why
            self._task.cancel()


class Desk:
    """One agent's shared state. The ceiling is replaced as a whole when the config is read again."""

    def __init__(self, config: Config, audit: AuditSink, detached: Detached, events: Hub) -> None:
        self.config = config
        self.ceiling = Ceiling(config)
        self.audit = BoundedRefusals(audit, config.agent.name)
        self.audit_path = Path(config.agent.state_dir) / "audit.jsonl"
        self.detached = detached
        self.name = config.agent.name
        self.host = LocalHost(self.name)
        self.active: dict[str, ActiveRun] = {}
        self.schedules = Keeper(self, Path(config.agent.state_dir) / "schedules")
        self.events = events
        events.offer("services", Services(self.host, None if os.geteuid() == 0 else runtime_dir(os.geteuid())))
        events.offer("containers", Containers(config.agent.container_sockets))
        self.bottle_turns = Turns()
        self.reading: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(READS_AT_ONCE))
        """By principal: places to read files and trees in."""
        self.terminals = Terminals(Path(config.agent.state_dir) / "recordings")
        self._running: Counter[str] = Counter()
        self._following: Counter[str] = Counter()
        self._followers: set[Follower] = set()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def refuse(self, listener: str, principal: str | None, step: Mapping[str, Any] | None, why: str) -> None:
        """Put a refusal in the audit; raises AuditUnavailable."""
        self._append(listener, principal, step, "deny", why, None)

    def allow(self, asker: Asker, step: Mapping[str, Any], why: str, run: str | None = None) -> None:
        """Put something other than a step that is let happen in the audit; raises AuditUnavailable."""
        self._append(asker.listener, asker.principal, step, "allow", why, run)

    def note(self, asker: Asker, step: Mapping[str, Any], run: str) -> None:
        """Put something in the audit that belongs to a run and decides nothing; raises AuditUnavailable."""
        self._append(asker.listener, asker.principal, step, None, None, run)

    def allow_self(self, step: Mapping[str, Any], why: str) -> None:
        """Put in the audit what the agent does of itself; raises AuditUnavailable."""
        self._append("agent", None, step, "allow", why, None)

    def _append(
        self,
        listener: str,
        principal: str | None,
        step: Mapping[str, Any] | None,
        decision: str | None,
        why: str | None,
        run: str | None,
    ) -> None:
        self.audit.append(
            {
                "host": self.name,
                "listener": listener,
                "principal": principal,
                "step": None if step is None else dict(step),
                "decision": decision,
                "layer": LAYER,
                "reason": None if why is None else printable(why[:2000]),
                "run": run,
            }
        )

    @contextmanager
    def slot(self, asker: Asker) -> Iterator[None]:
        """Hold one of a principal's places, of which detached runs take one each; raises LimitExceeded for no place."""
        who = asker.principal
        living = sum(record.principal == who for record in self.detached.live.values())
        with self._place(self._running, who, living, "runs under way"):
            yield

    @contextmanager
    def follower(self, asker: Asker) -> Iterator[None]:
        """Hold one of a principal's places to follow runs from; they are not those to run in."""
        with self._place(self._following, asker.principal, 0, "followers of runs"):
            yield

    @contextmanager
    def following(self, asker: Asker, run: str, verb: str, admits: Callable[[Asker], str | None]) -> Iterator[None]:
        """As `follower`, of one run, for as long as the grants admit it; raises what ended it."""
        follower = Follower(asker, run, verb, admits)
        with self.follower(asker):
            self._followers.add(follower)
            try:
                yield
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if follower.ended_by is None or task is None:
                    raise
                task.uncancel()
                raise follower.ended_by from None
            finally:
                self._followers.discard(follower)

    @contextmanager
    def _place(self, held: Counter[str], who: str, more: int, what: str) -> Iterator[None]:
        limit = self.config.limits.max_runs_per_principal
        if held[who] + more >= limit:
            text = f"{who} has {limit} {what}, which is its limit"
            raise LimitExceeded(text, hint="wait for one to end, or raise max_runs_per_principal")
        held[who] += 1
        try:
            yield
        finally:
            held[who] -= 1
            if not held[who]:
                del held[who]

    def judge_again(self) -> int:
        """End what runs for connected callers and what their grants, read again, would not admit; returns how many.

        Who follows a run of another's that they may not read any more follows it no longer.
        """
        ended = 0
        for follower in list(self._followers):
            self._judge_follower(follower)
        for active in list(self.active.values()):
            why = active.lost_its_grant(self.ceiling, self.config.consent.always)
            if why is None:
                continue
            error: OpsError = CapabilityDenied("a grant", (), layer=LAYER, reason=f"{why}: it was ended")
            try:
                self.refuse(active.listener, active.principal, active.step, f"{why}; the run {active.run} is ended")
            except OpsError as unavailable:
                error = unavailable
            active.end(error)
            ended += 1
        return ended

    def _judge_follower(self, follower: Follower) -> None:
        was = follower.asker
        now = Asker(was.principal, was.listener, self.ceiling.grants(was.principal))
        known = bool(now.grants) or oversees(self.config, was.listener, was.principal)
        if known and follower.admits(now) is not None:
            return
        why = f"{was.principal} may not read the run any more"
        error: OpsError = CapabilityDenied("a grant", (), layer=LAYER, reason=why)
        try:
            self.refuse(was.listener, was.principal, follower.step, why)
        except OpsError as unavailable:
            error = unavailable
        follower.end(error)

    def claim(self, run: str) -> None:
        """Take a run's id for a caller, once and for all; raises UsageError for one that isn't theirs to take."""
        if run.startswith(SCHEDULED):
            text = f"the run id {run} begins with {SCHEDULED}, as those of schedules do"
            raise UsageError(text, hint="choose another run id")
        if run in self._seen or run in self.active or self.detached.store.is_known(run):
            raise UsageError(f"the run {run} was asked for before: it is not run again", hint="choose another run id")
        self._seen[run] = None
        if len(self._seen) > REMEMBERED_RUNS:
            self._seen.popitem(last=False)
