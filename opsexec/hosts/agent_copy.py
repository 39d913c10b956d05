"""Copies through ops-agent: the end here is the same as over SSH, the other one is started and held by the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from opsexec.errors import ConnectionLost, OpsError, ProtocolError
from opsexec.far.copy_request import CopyRequest
from opsexec.hosts.agent_exchange import Exchange, request_head
from opsexec.hosts.agent_http import chunk
from opsexec.hosts.bridge import BLOCK, Bridge, Wire
from opsexec.hosts.copies import copy_tree
from opsexec.wire import Grants, Result, encode_request
from opsexec.wire_copy import MODULES, CopyWords, encode_words

if TYPE_CHECKING:
    from opsexec.hosts.agent_host import AgentHost
    from opsexec.hosts.agent_link import AgentLink
    from opsexec.hosts.port import SyncPlan, SyncResult
    from opsexec.steps.sync import Sync


async def copy_through_agent(
    agent: AgentHost, step: Sync, plan: SyncPlan, attenuation: tuple[Grants, ...] | None
) -> SyncResult:
    """Copy by rsync, or by a tar stream where rsync can't carry it. Raises what the agent answers, too."""
    wires: list[AgentWire] = []

    async def open_far(module: str, nonce: str, bridge: Bridge) -> Wire:
        # A second try is a request of its own: an agent runs none twice.
        run = plan.run if not wires else f"{plan.run[:58]}-again"

        def request(asked: CopyRequest) -> bytes:
            if module == MODULES["rsync"]:
                words = CopyWords("rsync", tuple(asked.words), asked.tree)
            else:
                words = CopyWords("tar", (), asked.tree)  # the patterns stand in the step
            fields = {"run": run, "check": plan.check, "streams_stdin": True, "attenuation": attenuation}
            head = request_head("POST", "/v1/sync", None)
            return head + chunk(encode_request(step, **fields) + encode_words(words))

        held = AsyncExitStack()
        link = await held.enter_async_context(agent.link())
        wire = AgentWire(agent.name, bridge, request, held, link, plan.timeout_s)
        wires.append(wire)
        bridge.data_received(nonce.encode())  # the agent has heard its own: what follows is the host's end
        return wire

    try:
        return await copy_tree(plan, agent.name, open_far)
    except ConnectionLost as lost:
        failure = wires[-1].failure if wires else None
        if failure is None:
            raise
        raise failure from lost  # what the agent said, and not only that the wire is gone


class AgentWire:
    """A Wire over one exchange with an agent. The first write is the copy's request, whole, and is translated."""

    def __init__(
        self,
        host: str,
        bridge: Bridge,
        request: Callable[[CopyRequest], bytes],
        held: AsyncExitStack,
        link: AgentLink,
        timeout_s: float | None,
    ) -> None:
        self._host = host
        self._bridge = bridge
        self._request = request
        self._held = held
        self._link = link
        self._timeout_s = timeout_s
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self._holding = False
        self._output = _Output(bridge)
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.failure: OpsError | None = None

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._exchange(self._request(CopyRequest.parse(data[4:]))))
            return
        self._blocks.put_nowait(data)
        self._waiting += len(data)
        if self._waiting > BLOCK and not self._holding:
            self._holding = True
            self._bridge.pause()

    def write_eof(self) -> None:
        self._blocks.put_nowait(None)

    def pause_reading(self) -> None:
        self._output.paused = True
        self._link.hold()

    def resume_reading(self) -> None:
        self._output.paused = False
        self._link.release()

    def close(self) -> None:
        """As `Wire.close`; once told, an exchange sees to the agent's end undisturbed, however often it is closed."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def wait_closed(self) -> None:
        """As `Wire.wait_closed`; the exchange itself bounds how long an agent may take to end what it does."""
        if self._task is None:
            await self._held.aclose()
        else:
            await asyncio.wait([self._task])

    async def _exchange(self, request: bytes) -> None:
        status: int | None = None
        try:
            exchange = Exchange(self._link, self._host, self._output)
            exchange.end_input = self._end_input
            end = await exchange.run(request, self._input(), self._timeout_s)
            if not isinstance(end, Result) or end.exit_code is None:
                raise ProtocolError("the agent's answer to a copy has no exit status", host=self._host)
            status = end.exit_code
        except OpsError as error:
            self.failure = error
            self._bridge.fail(error)
        finally:
            self._bridge.lost(status)
            await self._held.aclose()

    def _end_input(self) -> None:
        """The host's end is through: what it didn't take is dropped."""
        while not self._blocks.empty():
            self._blocks.get_nowait()
        self._blocks.put_nowait(None)

    async def _input(self) -> AsyncIterator[bytes]:
        while (block := await self._blocks.get()) is not None:
            yield block
            self._waiting -= len(block)
            if self._holding and self._waiting <= BLOCK // 2:
                self._holding = False
                self._bridge.resume()


class _Output:
    """What comes from the host's end, for its bridge; counted, and nothing kept."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.paused = False
        self.counts = [0, 0]
        self.limit_bytes: int | None = None
        self.over_limit = False
        self.failure: BaseException | None = None
        self.on_drain: Callable[[], None] | None = None
        self.on_failure: Callable[[], None] | None = None

    def feed(self, stream: int, data: bytes) -> bool:
        """Take a block; returns False when the process here is behind."""
        self.counts[stream] += len(data)
        if stream == 0:
            self._bridge.data_received(data)
        else:
            self._bridge.complain(data)
        return not self.paused
