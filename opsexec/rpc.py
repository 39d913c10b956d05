"""AgentRpc: steps on a host whose ops-agent holds a ceiling of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opsexec.capability import Requirement
from opsexec.default_audit import default_audit
from opsexec.digest import differ
from opsexec.errors import LimitExceeded, ProtocolError, StepTimeout, UsageError
from opsexec.executor import LogSink, RunOutput, Stream, TtySession
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.registry import Handler, handler_of
from opsexec.host_executor import HostExecutor
from opsexec.hosts.agent_aside import wait_until_ended
from opsexec.hosts.agent_exchange import Exchange, request_head
from opsexec.hosts.agent_host import AgentHost, UnixWay, Way
from opsexec.hosts.agent_http import chunk
from opsexec.hosts.far_run import no_word_of_end
from opsexec.hosts.port import ProcessExit
from opsexec.principal import local_principal
from opsexec.recorder import Recorder
from opsexec.wire import DEFAULT_SOCKET, Result, encode_request, pack_grants, require_run_id

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink, EventStream
    from opsexec.hosts.ssh_login import SshOptions
    from opsexec.rpc_terminals import AgentTerminals
    from opsexec.steps.base import Step
    from opsexec.steps.sync import Sync
    from opsexec.steps.tty import Tty


class AgentRpc(HostExecutor):
    """An Executor for `agent+unix:///path`, `agent+ssh://[user@]host[:port][/path]`, `tailnet://name[:port]` or
    `agent+tcp://address[:port]`.

    `audit`: None = the user's own log; `options`: how to log in by SSH; `tailscaled_socket`: who knows the tailnet.
    Every step is checked and audited here first, then again by the agent under its own grants: what runs is what both
    admit. Closing it, or losing it, ends what it runs there, but for runs that were started to live on.
    """

    def __init__(
        self,
        url: str,
        *,
        capabilities: CapabilitySet,
        audit: AuditSink | None = None,
        name: str | None = None,
        options: SshOptions | None = None,
        tailscaled_socket: str | None = None,
        listener: str = "library",
    ) -> None:
        way, label = _way(url, options, tailscaled_socket)
        self._agent = AgentHost(name or label, way)
        self._own: set[str] = set()
        self.on_note: Callable[[str], None] | None = None
        self._attenuation = pack_grants(capabilities)
        log = audit or default_audit()
        super().__init__(self._agent, capabilities, log, principal=local_principal(), listener=listener)

    def _handler(self, step: Step) -> Handler:
        """Carry whole steps; of a copy, this machine's end is here."""
        handler_of(step)
        return self._copy if step.family == "sync" else self._carry

    async def _copy(self, step: Sync, context: Context) -> Outcome:
        """Copy a tree, its other end held by the agent."""
        from opsexec.handlers.sync import outcome_of, plan_of
        from opsexec.hosts.agent_copy import copy_through_agent

        result = await copy_through_agent(self._agent, step, plan_of(step, context), self._attenuation)
        return outcome_of(result, context)

    async def _carry(self, step: Step, context: Context) -> Outcome:
        """Have the agent do one step."""
        request = encode_request(
            step,
            run=context.run,
            check=context.check,
            diff=context.diff,
            streams_stdin=context.stdin is not None,
            attenuation=self._attenuation,
        )
        async with self._agent.link() as link:
            exchange = Exchange(link, self.host, context.recorder)
            if context.stdin is None:
                whole = request_head("POST", "/v1/steps", len(request)) + request
            else:
                whole = request_head("POST", "/v1/steps", None) + chunk(request)
            try:
                end = await exchange.run(whole, context.stdin, context.timeout_s)
            except BaseException as error:  # a cancellation as well: the agent may still be at it
                unheard = exchange.unheard
                if link.lost is not None and not self._agent.way.half_closes:
                    unheard = not await wait_until_ended(self._agent.way, self.host, context.run)
                left = isinstance(error, asyncio.CancelledError) and step.family == "process"
                if unheard and (left or isinstance(error, (StepTimeout, LimitExceeded))):
                    raise no_word_of_end(self.host) from error
                raise
        if not isinstance(end, Result):
            raise ProtocolError("the agent started a run instead of doing the step", host=self.host)
        return self._outcome(end, context)

    def observe(self, *names: str, interval_s: float = 5.0) -> EventStream:
        """Follow the host: samples on a beat, and what changes as it does; see `Events` for the names."""
        from opsexec.observation import Observation
        from opsexec.steps.events import Events

        return Observation(self, Events(names=names, interval_s=interval_s))

    async def start(self, step: Step, *, run: str | None = None) -> str:
        """Start an Exec or Shell that lives on without this caller, and return its run id.

        `run`: the id to give it; asking again with the same id and step starts nothing a second time, so it is safe to
        repeat after ConnectionLost. Raises as `run` does; how the run ends is in the agent's audit, and in `attach`.
        """
        self._next_run = None if run is None else require_run_id(run)
        chosen, base = self._admit(step)
        begun = time.monotonic()
        try:
            self._capabilities.clamp_timeout(step.timeout_s, host=self.host)
            request = encode_request(step, run=chosen, detach=True, attenuation=self._attenuation)
            async with self._agent.link() as link:
                head = request_head("POST", "/v1/steps", len(request))
                end = await Exchange(link, self.host).run(head + request)
            if end != chosen:
                raise ProtocolError("the agent doesn't say that it started the run", host=self.host)
        except BaseException as error:  # whatever stops it, the audit has the allowed step's end
            self._record_failure(base, Recorder(), error, time.monotonic() - begun)
            raise
        self._own.add(chosen)
        self._append_outcome(base, {"detached": True, "duration_s": round(time.monotonic() - begun, 6)})
        return chosen

    @property
    def terminals(self) -> AgentTerminals:
        """Terminals of others there: watch, fetch their recordings, answer for the host."""
        from opsexec.rpc_terminals import AgentTerminals

        return AgentTerminals(self._agent, lambda run: self._require_run("run.read", run))

    async def open_tty(self, step: Tty) -> TtySession:
        """Open a terminal, recorded on the host; `on_note` is told what the agent has to say meanwhile.

        Where the host's grant asks a person there first, output begins once they have said yes; ConsentDenied comes
        from `wait` when they haven't.
        """
        from opsexec.hosts.agent_terminal import AgentTerminal
        from opsexec.terminal import AuditedTerminal

        run, base = self._admit(step)
        begun = time.monotonic()
        try:
            timeout_s = self._capabilities.clamp_timeout(step.timeout_s, host=self.host)
            request = encode_request(step, run=run, streams_stdin=True, attenuation=self._attenuation)
        except BaseException as error:  # whatever stops it, the audit has the allowed step's end
            self._record_failure(base, Recorder(), error, 0.0)
            raise
        session = AgentTerminal(
            self._agent,
            request,
            run=run,
            timeout_s=timeout_s,
            max_output_bytes=self._capabilities.max_output_bytes,
            on_note=self.on_note,
        )
        self._own.add(run)
        return AuditedTerminal(
            session,
            lambda output: self._record_outcome(base, output),
            lambda error: self._record_failure(base, Recorder(), error, time.monotonic() - begun),
        )

    async def attach(
        self,
        run: str,
        sink: LogSink | None = None,
        *,
        offset: int = 0,
        on_offset: Callable[[int], None] | None = None,
    ) -> RunOutput:
        """Follow a detached run from an offset of its log, in bytes, until it ends; returns what `run_streaming` does.

        The output begins with the frame that holds that byte. `on_offset` is told, after each block the sink has taken
        and at the end, where to go on from. Raises CapabilityDenied, ConnectionLost, and the error the run ended in.
        """
        self._require_run("run.read", run)
        recorder = Recorder(sink, standard_digest=True)
        async with self._agent.link() as link:
            exchange = Exchange(link, self.host, recorder)
            if on_offset is not None and sink is not None:
                recorder.sink = told = _Told(sink, on_offset)
                exchange.on_frame = told.came
            try:
                end = await exchange.run(request_head("GET", f"/v1/runs/{require_run_id(run)}?offset={offset}"))
                await recorder.finish()
            except BaseException:  # a cancellation as well: the sink is told no more
                recorder.abandon()
                raise
            if on_offset is not None:
                on_offset(exchange.offset)
        if not isinstance(end, Result):
            raise ProtocolError("the agent's answer is not a run's end", host=self.host)
        if offset == 0:
            self._require_complete(end, recorder)
        return RunOutput(
            run=run,
            host=self.host,
            exit_code=end.exit_code,
            signal=end.signal,
            duration_s=end.duration_s,
            stdout=recorder.tail(0),
            stderr=recorder.tail(1),
            stdout_bytes=end.stdout_bytes,
            stderr_bytes=end.stderr_bytes,
            digest=end.digest,
            truncated=recorder.truncated or recorder.counts != [end.stdout_bytes, end.stderr_bytes],
            changed=end.changed,
        )

    async def runs(self) -> list[dict[str, Any]]:
        """Return the runs this caller may see there, the newest first: run, principal, step, begun, state and so on."""
        found = (await self._read("/v1/runs")).get("runs")
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ProtocolError("the agent's answer holds no list of runs", host=self.host)
        return found

    async def signal(self, run: str, signal: str = "end") -> None:
        """Send a signal, like "SIGHUP", to every process of a run; "end" ends it all and waits until it is gone."""
        self._require_run("run.signal", run)
        body = json.dumps({"signal": signal}).encode()
        head = request_head("POST", f"/v1/runs/{require_run_id(run)}/signal", len(body))
        async with self._agent.link() as link:
            await Exchange(link, self.host).run(head + body)

    def _require_run(self, verb: str, run: str) -> None:
        """Raise CapabilityDenied unless this executor started the run itself, or holds the verb for it."""
        if run not in self._own:
            self._capabilities.require(Requirement(verb, run), host=self.host)

    async def schedules(self) -> list[dict[str, Any]]:
        """Return the schedules this caller may see there: name, cron, owner, next, last and so on."""
        found = (await self._read("/v1/schedules")).get("schedules")
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ProtocolError("the agent's answer holds no list of schedules", host=self.host)
        return found

    async def schedule(self, name: str) -> dict[str, Any]:
        """Return one schedule; raises UsageError where there is none, CapabilityDenied."""
        from opsexec.steps.schedule import schedule_name

        return await self._read(f"/v1/schedules/{schedule_name(name)}")

    async def whoami(self) -> dict[str, Any]:
        """Return who the agent takes this caller for, and the grants of that principal; raises CapabilityDenied."""
        return await self._read("/v1/whoami")

    async def _read(self, target: str) -> dict[str, Any]:
        """Return the JSON object that a GET answers with."""
        async with self._agent.link() as link:
            end = await Exchange(link, self.host).run(request_head("GET", target))
        if not isinstance(end, Result) or not isinstance(end.value, dict):
            raise ProtocolError(f"the agent's answer to {target} is not an object", host=self.host)
        return end.value

    def _outcome(self, result: Result, context: Context) -> Outcome:
        """Return a result as an outcome, once it agrees with the output that came."""
        self._require_complete(result, context.recorder)
        return Outcome(
            exit=ProcessExit(result.exit_code, result.signal),
            changed=result.changed,
            diff=result.diff,
            skipped=result.skipped,
            value=result.value,
        )

    def _require_complete(self, result: Result, recorder: Recorder) -> None:
        """Raise ProtocolError unless all the output that was made has come, as it was made."""
        said = [result.stdout_bytes, result.stderr_bytes]
        if said != recorder.counts or differ(result.digest, recorder.digest):
            text = f"the agent says {said} bytes of output were made, {recorder.counts} came"
            raise ProtocolError(text, host=self.host, hint="part of the output was lost or changed on the way")


class _Told:
    """A sink that says how far the log was taken, in whole frames."""

    def __init__(self, sink: LogSink, on_offset: Callable[[int], None]) -> None:
        self._sink = sink
        self._on_offset = on_offset
        self._taken = 0
        self._came: deque[tuple[int, int]] = deque()

    def came(self, output_bytes: int, offset: int) -> None:
        """Once the sink has taken so much output, this much of the log is done with."""
        self._came.append((output_bytes, offset))

    async def write(self, stream: Stream, data: bytes) -> None:
        await self._sink.write(stream, data)
        self._taken += len(data)
        while self._came and self._came[0][0] <= self._taken:
            self._on_offset(self._came.popleft()[1])


def _way(url: str, options: SshOptions | None, tailscaled_socket: str | None) -> tuple[Way, str]:
    """Return how to reach the agent that a URL names, and how to call it; raises UsageError."""
    scheme, _, rest = url.partition("://")
    if scheme == "agent+unix":
        if not rest.startswith("/") or "\0" in rest:
            raise UsageError(f"{url!r} names no socket", hint=f"like agent+unix://{DEFAULT_SOCKET}")
        return UnixWay(rest), f"agent:{rest}"
    if scheme == "agent+ssh":
        from opsexec.hosts.agent_ssh import SshWay
        from opsexec.hosts.ssh_login import SshAddress, SshOptions

        address, slash, path = rest.partition("/")
        socket = slash + path if path else DEFAULT_SOCKET
        where = SshAddress.parse(address)
        return SshWay(where, options or SshOptions(), socket), f"agent:{where}"
    if scheme in ("tailnet", "agent+tcp"):
        from opsexec.hosts.agent_tailnet import TailnetHost, TailnetWay

        node = TailnetHost.parse(url)
        return TailnetWay(node, tailscaled_socket), f"agent:{node.label}"
    hint = "use agent+unix:///path, agent+ssh://[user@]host or tailnet://name"
    raise UsageError(f"{url!r} is not an agent's URL", hint=hint)
