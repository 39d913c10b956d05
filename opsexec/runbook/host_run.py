"""One host's way through a runbook: its steps in order until one fails, then the `always` steps."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from opsexec.errors import (
    AuditUnavailable,
    BadRunbook,
    BadStep,
    CapabilityDenied,
    ConnectionLost,
    HostKeyRejected,
    HostUnreachable,
    OpsError,
    PathNotFound,
    StepFailed,
)
from opsexec.runbook.expression import parse_condition
from opsexec.runbook.foreseen import Foreseen
from opsexec.runbook.foreseen_files import assumed_diff
from opsexec.runbook.journal import Journal, JournalUnavailable
from opsexec.runbook.masking import Masker
from opsexec.runbook.model import Assert, RunbookStep, Template
from opsexec.runbook.options import CLEANUP_TIMEOUT_S, Connect, RunOptions
from opsexec.runbook.progress import HostFinished, Progress, StepFinished, StepStarted
from opsexec.runbook.reference import Reference
from opsexec.runbook.rendering import render_step, template_references
from opsexec.runbook.report import TAIL_CHARACTERS, HostReport, Status, StepReport
from opsexec.runbook.results import registered
from opsexec.runbook.resume import HostState
from opsexec.runbook.secrecy import refuse_said_secrets
from opsexec.runbook.step_keys import in_keys
from opsexec.runbook.template import references, render_open

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import Executor, RunOutput
    from opsexec.inventory import InventoryHost
    from opsexec.runbook.variables import Scope
    from opsexec.steps.base import Step

RUN_AGAIN = "was started before, but not finished: run again"
Keyed = tuple[str, RunbookStep]


@dataclass
class Shared:
    """What all hosts of a run share."""

    connect: Connect
    options: RunOptions
    progress: Progress
    journal: Journal
    masker: Masker


@dataclass
class _Made:
    """What came of one step."""

    status: Status
    output: RunOutput | None = None
    changed: bool = False
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    predicted: bool = False
    diff: str | None = None


class HostRun:
    """Runs the steps of one host and keeps its report."""

    def __init__(
        self,
        host: InventoryHost,
        capabilities: CapabilitySet,
        scope: Scope,
        state: HostState | None,
        shared: Shared,
    ) -> None:
        self._host = host
        self._capabilities = capabilities
        self._scope = scope
        self._state = state or HostState()
        self._shared = shared
        self._executor: Executor | None = None
        self._reached = False
        self._predicted: set[str] = set()
        self._valueless: set[str] = set()
        self._foreseen = Foreseen()
        self._flags = {"changed": False, "failed": False}
        self.report = HostReport(host.name, [])

    @property
    def failed(self) -> bool:
        """True once a step failed or the host could not be reached."""
        return self._flags["failed"]

    async def run(self, steps: list[Keyed], always: list[Keyed]) -> None:
        """Run what this host has not behind it. Cancelling ends the step under way.

        `always` still runs, bounded.
        """
        if self._state.done:
            self._restore([*steps, *always])
            self.report.status = self._status()
            self._shared.progress.on(HostFinished(self._host.name, self.report.status))
            return
        good = self._state.good_prefix([key for key, _ in steps])
        self._restore(steps[: len(good)])
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._steps(steps[len(good) :], stack)
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLEANUP_TIMEOUT_S):
                        await self._always(steps, always, stack)
                        await stack.aclose()
                    raise
                await self._always(steps, always, stack)
        except OpsError as error:
            if _is_fatal(error):
                raise
            # Every step has its record already: what failed is the transport's own goodbye.
            self._flags["failed"] = True
            self.report.steps.append(StepReport(name="disconnect", status="failed", error=error.message))
        self.report.status = self._status()
        self._shared.journal.record("host", host=self._host.name, status=self.report.status)
        self._shared.progress.on(HostFinished(self._host.name, self.report.status))

    def _status(self) -> Status:
        statuses = [step.status for step in self.report.steps]
        if self._flags["failed"]:
            return "unreachable" if "unreachable" in statuses else "failed"
        if self._flags["changed"]:
            return "changed"
        return "skipped" if statuses and all(status == "skipped" for status in statuses) else "ok"

    def _restore(self, steps: list[Keyed]) -> None:
        """Take over what the journal says about steps that are not run again."""
        for key, step in steps:
            done = self._state.finished.get(key)
            if done is None:
                continue
            self.report.steps.append(done.report)
            self._flags["changed"] |= done.changed
            if step.register is not None:
                self._scope.registered[step.register] = done.registered or registered(None, skipped="not kept")

    async def _steps(self, steps: list[Keyed], stack: AsyncExitStack) -> None:
        for key, step in steps:
            made = await self._one(key, step, stack)
            if made.status == "unreachable" or (made.status == "failed" and not step.allow_failure):
                self._flags["failed"] = True
                return

    async def _always(self, steps: list[Keyed], always: list[Keyed], stack: AsyncExitStack) -> None:
        """Run every `always` step, also after one of them failed; not on a host that was never reached."""
        if not self._reached and self._flags["failed"] and self._status() == "unreachable":
            return
        for _, step in steps:
            if step.register is not None:
                self._scope.registered.setdefault(step.register, registered(None, skipped="not run"))
        for key, step in always:
            made = await self._one(key, step, stack, tagged=True)
            if made.status in ("failed", "unreachable") and not step.allow_failure:
                self._flags["failed"] = True

    async def _one(self, key: str, step: RunbookStep, stack: AsyncExitStack, *, tagged: bool = False) -> _Made:
        """Run one step, with its record before and after it."""
        shared, name = self._shared, self._host.name
        note = RUN_AGAIN if key in self._state.begun else None
        begun = time.monotonic()
        shared.journal.record("started", host=name, step=key, name=step.title)
        shared.progress.on(StepStarted(name, key, step.title, 1))
        try:
            made = await self._make(key, step, stack, tagged)
        except anyio.get_cancelled_exc_class():
            report = StepReport(name=step.title, status="failed", error="interrupted", note=note)
            report.duration_s = time.monotonic() - begun
            self.report.steps.append(report)
            self._flags["failed"] = True
            shared.progress.on(StepFinished(name, key, report))
            raise
        report = self._report(step, made, time.monotonic() - begun, note)
        self.report.steps.append(report)
        self._flags["changed"] |= made.changed
        if step.register is not None:
            self._scope.registered[step.register] = made.result
            (self._predicted.add if made.predicted else self._predicted.discard)(step.register)
            valueless = shared.options.check and made.changed and made.result.get("value") is None
            (self._valueless.add if valueless else self._valueless.discard)(step.register)
        shared.journal.record(
            "finished",
            host=name,
            step=key,
            **report.as_json(),
            **({"tolerated": True} if step.allow_failure and report.status == "failed" else {}),
            **({"registered": made.result} if step.register is not None else {}),
        )
        diff = (made.diff if made.output is None else made.output.diff) if shared.options.diff else None
        report.diff = None if diff is None else shared.masker.text(diff)  # after the journal, which keeps none
        shared.progress.on(StepFinished(name, key, report, report.diff))
        return made

    def _report(self, step: RunbookStep, made: _Made, duration_s: float, note: str | None) -> StepReport:
        output, mask = made.output, self._shared.masker
        text = "" if output is None else output.stdout.decode("utf-8", "replace")
        # Masked before it is cut, so that no half of a secret is left at its head.
        text = mask.text(text, cut=output is not None and output.stdout_bytes > len(output.stdout))
        return StepReport(
            name=step.title,
            status=made.status,
            changed=made.changed,
            exit_code=None if output is None else output.exit_code,
            duration_s=duration_s,
            stdout_tail=text[-TAIL_CHARACTERS:],
            error=None if made.error is None else mask.text(made.error),
            note=note,
        )

    async def _make(self, key: str, step: RunbookStep, stack: AsyncExitStack, tagged: bool) -> _Made:
        options = self._shared.options
        if options.tags and not tagged and not set(options.tags) & set(step.tags):
            return _skipped("not among the tags")
        needs = self._unknown_in_check(step)
        if needs is not None:
            return _skipped(f"check mode: depends on {needs}, which was not run", predicted=True)
        try:
            if step.when is not None and not parse_condition(step.when).holds(self._scope, self._flags):
                return _skipped(f"when {step.when}")
            if isinstance(step.action, Assert):
                return self._assert(step.action)
            if isinstance(step.action, Template):
                refuse_said_secrets(step.action, self._scope, self._shared.masker)
            made = render_step(step.action, self._scope)
            waits_for = self._foreseen.waits_for(made) if options.check else None
            if waits_for is not None:
                return self._assume(made, waits_for)
        except OpsError as error:
            return _failed(error)
        attempts = 1 + (step.retry.times if step.retry is not None else 0)
        for attempt in range(1, attempts + 1):
            if attempt > 1 and step.retry is not None:
                await anyio.sleep(step.retry.delay)
                self._shared.progress.on(StepStarted(self._host.name, key, step.title, attempt))
            try:
                executor = await self._open(stack)
                output = await executor.run_streaming(made, check=options.check, diff=options.diff)
                self._reached = True
                output.check()
                if options.check and output.changed:
                    self._foreseen.took(made)
                return self._judge(step, output)
            except OpsError as error:
                if _is_fatal(error):
                    raise
                self._reached |= _was_reached(error)
                missing = options.check and isinstance(error, PathNotFound)
                unmade = self._foreseen.explains_missing(made) if missing else None
                if unmade is not None:
                    return self._assume(made, unmade)
                if attempt == attempts or not _may_pass(error):
                    return _failed(error)
        raise AssertionError("the last attempt returns")

    async def _open(self, stack: AsyncExitStack) -> Executor:
        """Open the executor when the first step needs it: a host with nothing to do is never contacted."""
        if self._executor is None:
            context = self._shared.connect(self._host, self._capabilities)
            self._executor = await stack.enter_async_context(context)
        return self._executor

    def _assume(self, made: Step, waits_for: str) -> _Made:
        """Predict a step over what a check can't look at, since an earlier step would only make or remove it."""
        for need in made.requires():
            self._capabilities.require(need, host=self._host.name)
        self._capabilities.require_user(made.run_as, host=self._host.name)
        why = f"check mode: depends on {waits_for}, which was not made or removed"
        if not made.mutates or self._foreseen.finds_nothing(made):
            return _skipped(why, predicted=not made.mutates)
        self._foreseen.took(made)
        result = registered(None, changed=True, skipped=why)
        return _Made("changed", None, True, None, result, predicted=True, diff=assumed_diff(made))

    def _judge(self, step: RunbookStep, output: RunOutput) -> _Made:
        result = registered(output)
        predicted = self._shared.options.check and output.changed and output.skipped is not None
        changed = output.changed
        decides = None if step.changed_when is None else parse_condition(step.changed_when)
        if decides is not None and not (predicted and any(map(self._unread, decides.references()))):
            try:
                changed = decides.holds(self._scope.with_result(result), self._flags)
            except OpsError as error:
                return _failed(error, output)
        result["changed"] = changed
        status: Status = "changed" if changed else "skipped" if output.skipped else "ok"
        return _Made(status, output, changed, None, result, predicted)

    def _assert(self, action: Assert) -> _Made:
        if parse_condition(action.that).holds(self._scope, self._flags):
            return _Made("ok", result=registered(None, exit_code=0))
        message = f"assertion failed: {action.that}"
        if action.message is not None:
            message = render_open(action.message, self._scope, "a message")
        return _Made("failed", error=message, result=registered(None, failed=True, error=message))

    def _unknown_in_check(self, step: RunbookStep) -> str | None:
        """Return the variable this step needs whose value a check could only guess, or None."""
        if not self._predicted and not self._valueless:
            return None
        asked = parse_condition(step.when).references() if step.when is not None else ()
        needed = [reference for reference in asked if not self._assumed(reference)]
        if isinstance(step.action, Assert):
            needed += parse_condition(step.action.that).references()
            needed += references(step.action.message or "")
        elif isinstance(step.action, Template):
            needed += [reference for reference, _, _ in template_references(step.action)]
        return next((reference.name for reference in needed if self._unknown(reference)), None)

    def _assumed(self, reference: Reference) -> bool:
        """True for `x.changed` of a step that a check takes to change something, as a plain `changed` does."""
        registered: dict[str, Any] = self._scope.registered.get(reference.name) or {}
        return reference.path == ("changed",) and registered.get("changed") is True

    def _unread(self, reference: Reference) -> bool:
        """True when a reference of `changed_when` stands for what only a run of its program would tell."""
        return reference.name == "result" or self._unknown(reference)

    def _unknown(self, reference: Reference) -> bool:
        """True when a check can't say what a reference stands for: of some steps it knows all but the value."""
        valueless = reference.name in self._valueless and reference.path[:1] == ("value",)
        return valueless or reference.name in self._predicted


def _skipped(why: str, *, predicted: bool = False) -> _Made:
    return _Made("skipped", result=registered(None, skipped=why), predicted=predicted)


def _failed(error: OpsError, output: RunOutput | None = None) -> _Made:
    if output is None and isinstance(error, StepFailed):
        output = error.output
    status: Status = "unreachable" if isinstance(error, HostUnreachable) else "failed"
    message = in_keys(error.message) if isinstance(error, BadStep) else error.message  # a host's words stay its own
    text = message if error.hint is None else f"{message} ({in_keys(error.hint)})"
    result = registered(output, failed=True, error=message)
    return _Made(status, output, output is not None and output.changed, text, result)


def _is_fatal(error: OpsError) -> bool:
    """True for what ends the whole run: nothing may happen that is not recorded here. A host tells of its own audit."""
    return isinstance(error, JournalUnavailable) or (isinstance(error, AuditUnavailable) and error.host is None)


def _was_reached(error: OpsError) -> bool:
    """True when a step failed on its host; having an executor says nothing, it connects for the first admitted step."""
    return isinstance(error, (StepFailed, ConnectionLost))


def _may_pass(error: OpsError) -> bool:
    """True when trying again may help: not for what was refused, and not for what is wrong in the request."""
    if isinstance(error, (CapabilityDenied, HostKeyRejected, BadRunbook)):
        return False
    return isinstance(error, (StepFailed, HostUnreachable))
