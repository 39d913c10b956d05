"""Terminals of others at an agent: watching them, fetching their recordings, answering for the host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec

from opsexec.errors import ProtocolError
from opsexec.hosts.agent_exchange import Exchange, request_head
from opsexec.hosts.agent_terminal import TerminalExchange
from opsexec.recorder import Recorder
from opsexec.recording_chain import Anchor
from opsexec.wire import Result, require_run_id

if TYPE_CHECKING:
    from opsexec.executor import LogSink, Stream
    from opsexec.hosts.agent_host import AgentHost

T = TypeVar("T")
MAX_RECORDING = 4 << 30
"""Bytes a recording that is fetched may have, whatever its agent would send."""


class KeptTerminal(msgspec.Struct, frozen=True):
    """A terminal that may be watched or replayed. `begun`: seconds since 1970; `live`: it is open."""

    run: str
    principal: str
    title: str
    begun: float
    bytes: int
    live: bool


class Question(msgspec.Struct, frozen=True):
    """A terminal that waits for a yes. `begun`, `until`: seconds since 1970."""

    run: str
    principal: str
    listener: str
    step: dict[str, Any]
    begun: float
    until: float


class AgentTerminals:
    """What AgentRpc.terminals gives. `require` raises unless the caller's own set lets it read a run."""

    def __init__(self, agent: AgentHost, require: Callable[[str], None]) -> None:
        self._agent = agent
        self._require = require

    async def watch(
        self,
        run: str,
        sink: LogSink,
        *,
        on_size: Callable[[int, int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> int | None:
        """Show a terminal from its beginning and while it goes on; returns the exit status, None where there is none.

        What is shown is what the program sent: pass it through SafeScreen before a terminal of yours gets it.
        """
        self._require(require_run_id(run))
        recorder = Recorder(sink)
        async with self._agent.link() as link:
            exchange = TerminalExchange(link, self._agent.name, recorder)
            exchange.on_size, exchange.on_note = on_size, on_note
            try:
                end = await exchange.run(request_head("GET", f"/v1/tty/{run}"))
                await recorder.finish()
            except BaseException:  # a cancellation as well: the sink is told no more
                recorder.abandon()
                raise
        status = self._value(end).get("status")
        return status if isinstance(status, int) else None

    async def fetch(self, run: str, file: BinaryIO) -> list[Anchor]:
        """Write a terminal's recording into a file; returns the links of it that are in the host's audit."""
        self._require(require_run_id(run))
        recorder = Recorder(_Into(file), limit_bytes=MAX_RECORDING)
        async with self._agent.link() as link:
            try:
                end = await Exchange(link, self._agent.name, recorder).run(
                    request_head("GET", f"/v1/tty/{run}/recording")
                )
                await recorder.finish()
            except BaseException:  # a cancellation as well: the file is written no more
                recorder.abandon()
                raise
        return self._checked(self._value(end).get("links"), list[Anchor])

    async def kept(self) -> list[KeptTerminal]:
        """Return the terminals this caller may watch or replay, the newest first."""
        value = await self._ask(request_head("GET", "/v1/tty"))
        return self._checked(value.get("terminals"), list[KeptTerminal])

    async def questions(self, wait_s: int = 0) -> list[Question]:
        """Return the questions that wait for this caller's answer; waits for one so many seconds, 60 at most."""
        value = await self._ask(request_head("GET", f"/v1/consent?wait={wait_s}"))
        return self._checked(value.get("questions"), list[Question])

    async def answer(self, run: str, consent: bool) -> None:
        """Say yes or no to a terminal that waits for it."""
        body = json.dumps({"consent": consent}).encode()
        await self._ask(request_head("POST", f"/v1/consent/{require_run_id(run)}", len(body)) + body)

    async def _ask(self, request: bytes) -> dict[str, Any]:
        async with self._agent.link() as link:
            return self._value(await Exchange(link, self._agent.name).run(request))

    def _value(self, end: Result | str) -> dict[str, Any]:
        if not isinstance(end, Result) or not isinstance(end.value, dict):
            raise ProtocolError("the agent's answer is not an object", host=self._agent.name)
        return end.value

    def _checked(self, value: object, kind: type[T]) -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise ProtocolError(
                f"the agent's answer is not what was asked for: {error}", host=self._agent.name
            ) from error


class _Into:
    """A sink that is a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def write(self, stream: Stream, data: bytes) -> None:
        self._file.write(data)
