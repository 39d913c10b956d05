"""AgentRpc: steps on a host whose ops-agent holds a ceiling of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opsexec.default_audit import default_audit
from opsexec.errors import ProtocolError, UsageError
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.registry import Handler, handler_of
from opsexec.host_executor import HostExecutor
from opsexec.hosts.agent_exchange import Exchange, request_head
from opsexec.hosts.agent_host import AgentHost, UnixWay, Way
from opsexec.hosts.agent_http import chunk
from opsexec.hosts.port import ProcessExit
from opsexec.principal import local_principal
from opsexec.wire import DEFAULT_SOCKET, Result, encode_request, pack_grants

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import AuditSink
    from opsexec.hosts.ssh_login import SshOptions
    from opsexec.steps.base import Step


class AgentRpc(HostExecutor):
    """An Executor for `agent+unix:///path` or `agent+ssh://[user@]host[:port][/path]`.

    `audit`: None = the user's own log; `options`: how to log in, for the second kind.
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
    ) -> None:
        way, label = _way(url, options)
        self._agent = AgentHost(name or label, way)
        self._attenuation = pack_grants(capabilities)
        super().__init__(self._agent, capabilities, audit or default_audit(), principal=local_principal())

    def _handler(self, step: Step) -> Handler:
        """Carry whole steps; what has no way yet is refused by the host port."""
        local = handler_of(step)
        return local if step.family == "sync" else self._carry

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
            end = await exchange.run(whole, context.stdin, context.timeout_s)
        if not isinstance(end, Result):
            raise ProtocolError("the agent started a run instead of doing the step", host=self.host)
        return self._outcome(end, context)

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
        recorder = context.recorder
        said = [result.stdout_bytes, result.stderr_bytes]
        if said != recorder.counts or result.digest != recorder.digest:
            text = f"the agent says {said} bytes of output were made, {recorder.counts} came"
            raise ProtocolError(text, host=self.host, hint="part of the output was lost or changed on the way")
        return Outcome(
            exit=ProcessExit(result.exit_code, result.signal),
            changed=result.changed,
            diff=result.diff,
            skipped=result.skipped,
            value=result.value,
        )


def _way(url: str, options: SshOptions | None) -> tuple[Way, str]:
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
    raise UsageError(f"{url!r} is not an agent's URL", hint="use agent+unix:///path or agent+ssh://[user@]host")
