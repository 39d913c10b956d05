"""`HostExecutor`: the loop every direct executor shares: admit, audit, hand to the handler, audit the outcome."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from opsexec.capability import clean_path, program_candidates
from opsexec.errors import BadStep, CapabilityDenied, OpsError
from opsexec.executor import LogSink, RunOutput, SyncOpts, TtySession
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import within
from opsexec.handlers.registry import Handler, handler_of
from opsexec.recorder import Recorder
from opsexec.steps.base import Step
from opsexec.steps.registry import brief, redact
from opsexec.steps.sync import Pull, Push

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink, EventStream
    from opsexec.hosts.port import Host
    from opsexec.steps.tty import Tty

CALLER = "caller"
"""The layer that an executor is unless it was told otherwise: the one that asks."""


class HostExecutor:
    """An Executor over a Host port. `principal`: who is asking, for the audit, like "unix:deploy".

    `layer`: which ceiling this is, in denials and in the audit. `run`: the id of its next run, where someone else has
    chosen it already (an agent's caller); ids are random without it.
    """

    def __init__(
        self,
        host: Host,
        capabilities: CapabilitySet,
        audit: AuditSink,
        *,
        principal: str,
        listener: str = "library",
        layer: str = CALLER,
        run: str | None = None,
    ) -> None:
        self._host = host
        self._capabilities = capabilities
        self._audit = audit
        self._principal = principal
        self._listener = listener
        self._layer = layer
        self._next_run = run

    @property
    def host(self) -> str:
        """The host's name, as errors and audit show it."""
        return self._host.name

    @property
    def capabilities(self) -> CapabilitySet:
        """What this executor may ask of the host."""
        return self._capabilities

    async def run(
        self,
        step: Step,
        sink: LogSink | None = None,
        *,
        check: bool = False,
        diff: bool = False,
        stdin: AsyncIterator[bytes] | None = None,
    ) -> RunOutput:
        """Run one Step; raises StepFailed when it ends with another status than 0 (see `Executor.run`)."""
        output = await self.run_streaming(step, sink, check=check, diff=diff, stdin=stdin)
        return output.check()

    async def run_streaming(
        self,
        step: Step,
        sink: LogSink | None = None,
        *,
        check: bool = False,
        diff: bool = False,
        stdin: AsyncIterator[bytes] | None = None,
    ) -> RunOutput:
        """As `run`, but an exit status is data, not an error."""
        handler = self._handler(step)
        run, base = self._admit(step)
        recorder = Recorder(sink, limit_bytes=self._capabilities.max_output_bytes)
        begun = time.monotonic()
        try:
            context = Context(
                run=run,
                host=self._host,
                capabilities=self._capabilities,
                recorder=recorder,
                check=check,
                diff=diff,
                timeout_s=self._capabilities.clamp_timeout(step.timeout_s, host=self.host),
                stdin=stdin,
            )
            outcome = await handler(step, context)
            if recorder.behind:
                await within("handing the last output to its sink", recorder.finish(), context)
            await recorder.finish()
        except BaseException as error:  # whatever stops it, the audit has the allowed step's end
            recorder.abandon()
            self._record_failure(base, recorder, error, time.monotonic() - begun)
            raise
        output = self._output(run, recorder, outcome, time.monotonic() - begun)
        self._record_outcome(base, output)
        return output

    def _handler(self, step: Step) -> Handler:
        """Return what does the step; raises BadStep where nothing does."""
        return handler_of(step)

    def _admit(self, step: Step) -> tuple[str, dict[str, Any]]:
        """Check the step against the set and put the decision in the audit; nothing has touched the host yet."""
        run, self._next_run = self._next_run or os.urandom(8).hex(), None
        needs = step.requires()
        base: dict[str, Any] = {
            "host": self.host,
            "listener": self._listener,
            "principal": self._principal,
            "step": redact(step),
            "requires": [brief(str(need)) for need in needs],
            "layer": self._layer,
            "run": run,
        }
        try:
            if not needs:
                raise BadStep(f"a {type(step).__name__} step asks for nothing, so nothing can admit it", host=self.host)
            for need in needs:
                self._capabilities.require(need, host=self.host, layer=self._layer)
            self._capabilities.require_user(step.run_as, host=self.host, layer=self._layer)
        except OpsError as error:
            self._audit.append({**base, "decision": "deny", "reason": brief(error.message)})
            raise
        self._audit.append({**base, "decision": "allow", "reason": "granted"})
        return run, base

    def _output(self, run: str, recorder: Recorder, outcome: Outcome, duration_s: float) -> RunOutput:
        ended = outcome.exit
        return RunOutput(
            run=run,
            host=self.host,
            exit_code=0 if ended is None else ended.exit_code,
            signal=None if ended is None else ended.signal,
            duration_s=duration_s,
            stdout=recorder.tail(0),
            stderr=recorder.tail(1),
            stdout_bytes=recorder.counts[0],
            stderr_bytes=recorder.counts[1],
            digest=recorder.digest,
            truncated=recorder.truncated,
            changed=outcome.changed,
            diff=outcome.diff,
            skipped=outcome.skipped,
            value=outcome.value,
        )

    def _record_outcome(self, base: dict[str, Any], output: RunOutput) -> None:
        """Append the outcome line. It repeats the run's id, not the step: the allow line holds that."""
        outcome: dict[str, Any] = {
            "exit_code": output.exit_code,
            "signal": output.signal,
            "duration_s": round(output.duration_s, 6),
            "stdout_bytes": output.stdout_bytes,
            "stderr_bytes": output.stderr_bytes,
            "digest": output.digest,
            "changed": output.changed,
        }
        if output.skipped:
            outcome["skipped"] = brief(output.skipped)
        self._append_outcome(base, outcome)

    def _record_failure(
        self, base: dict[str, Any], recorder: Recorder, error: BaseException, duration_s: float
    ) -> None:
        """Append the outcome line of a run that ended in an error, or was cancelled."""
        code = error.code if isinstance(error, OpsError) else type(error).__name__
        outcome: dict[str, Any] = {
            "exit_code": None,
            "signal": None,
            "duration_s": round(duration_s, 6),
            "stdout_bytes": recorder.counts[0],
            "stderr_bytes": recorder.counts[1],
            "digest": recorder.digest,
            "error": code,
        }
        if isinstance(error, CapabilityDenied):
            reason = brief(error.message)
            denial = {"decision": "deny", "layer": error.layer, "reason": reason, "outcome": outcome}
            self._audit.append({**base, **denial})
            return
        self._append_outcome(base, outcome)

    def _append_outcome(self, base: dict[str, Any], outcome: dict[str, Any]) -> None:
        self._audit.append(
            {
                "host": base["host"],
                "listener": base["listener"],
                "principal": base["principal"],
                "layer": base["layer"],
                "run": base["run"],
                "outcome": outcome,
            }
        )

    async def push(self, src: str, dst: str, opts: SyncOpts | None = None) -> RunOutput:
        """Copy a local tree to the host; raises StepFailed when it can't."""
        o = opts or SyncOpts()
        step = Push(src, dst, delete=o.delete, excludes=o.excludes, bandwidth_bytes_s=o.bandwidth_bytes_s)
        return await self.run(step, check=o.check)

    async def pull(self, src: str, dst: str, opts: SyncOpts | None = None) -> RunOutput:
        """Copy a tree from the host; raises StepFailed when it can't."""
        o = opts or SyncOpts()
        step = Pull(src, dst, delete=o.delete, excludes=o.excludes, bandwidth_bytes_s=o.bandwidth_bytes_s)
        return await self.run(step, check=o.check)

    def observe(self, *names: str, interval_s: float = 5.0) -> EventStream | None:
        """Follow the host's load, memory, disks and services; raises CapabilityDenied on the first event's way."""
        from opsexec.observation import Observation
        from opsexec.steps.observe import Observe

        return Observation(self, Observe(names=names, interval_s=interval_s))

    async def open_tty(self, step: Tty) -> TtySession:
        """Open a terminal; its end is audited like any run's."""
        from opsexec.hosts.port import ProcessSpec
        from opsexec.secret import reveal
        from opsexec.terminal import AuditedTerminal

        run, base = self._admit(step)
        need = next(need for need in step.requires() if need.verb == "tty")
        assert isinstance(need.resource, tuple)
        begun = time.monotonic()
        try:
            spec = ProcessSpec(
                run=run,
                programs=program_candidates(step.argv[0]),
                admitted=self._capabilities.admitted_programs(need),
                argv=need.resource,
                env={name: reveal(value) for name, value in step.env.items()},
                cwd=None if step.cwd is None else clean_path(step.cwd),
                run_as=step.run_as,
                timeout_s=self._capabilities.clamp_timeout(step.timeout_s, host=self.host),
                max_output_bytes=self._capabilities.max_output_bytes,
            )
            session = await self._host.open_tty(spec, step.term, step.columns, step.rows)
        except BaseException as error:  # as above
            self._record_failure(base, Recorder(), error, 0.0)
            raise
        return AuditedTerminal(
            session,
            lambda output: self._record_outcome(base, output),
            lambda error: self._record_failure(base, Recorder(), error, time.monotonic() - begun),
        )

    async def aclose(self) -> None:
        """End what still runs and close the transport."""
        await self._host.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
