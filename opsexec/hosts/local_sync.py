"""Copies on the caller's own machine: the same two ends, the other one a child process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from opsexec.hosts.bootstrap import opening
from opsexec.hosts.bridge import Bridge, Wire
from opsexec.hosts.copies import copy_tree
from opsexec.hosts.local_session import start_far

if TYPE_CHECKING:
    from opsexec.hosts.local import LocalHost
    from opsexec.hosts.port import SyncPlan, SyncResult

CLOSE_S = 1.0
"""Seconds the other end has to end by itself, with all it started, once its pipes are closed."""


async def sync_local(host: LocalHost, plan: SyncPlan) -> SyncResult:
    """Copy between two local trees under the plan's grants."""

    async def open_far(module: str, nonce: str, bridge: Bridge) -> Wire:
        transport, pipes = await start_far(lambda: _BridgePipes(bridge), host.name, plan.run_as)
        wire = _PipeWire(transport, pipes)
        wire.write(opening(nonce, module))
        return wire

    return await copy_tree(plan, host.name, open_far)


class _PipeWire:
    """A Wire over a child's stdin and stdout."""

    def __init__(self, transport: asyncio.SubprocessTransport, pipes: _BridgePipes) -> None:
        self._transport = transport
        self._gone = pipes.gone
        self._input = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        self._output = cast(asyncio.ReadTransport, transport.get_pipe_transport(1))

    def write(self, data: bytes) -> None:
        if not self._input.is_closing():
            self._input.write(data)

    def write_eof(self) -> None:
        if not self._input.is_closing():
            self._input.write_eof()

    def pause_reading(self) -> None:
        if not self._output.is_closing():
            self._output.pause_reading()

    def resume_reading(self) -> None:
        if not self._output.is_closing():
            self._output.resume_reading()

    def close(self) -> None:
        """Close the pipes only: the child sees that and ends its own tree, which a signal to it would leave behind."""
        # A pipe that is closing with nothing left to write closes by itself, and asyncio fails when it is told twice.
        if not self._input.is_closing() or self._input.get_write_buffer_size():
            self._input.abort()
        self._output.close()

    async def wait_closed(self) -> None:
        waiting = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait([waiting], timeout=CLOSE_S)
        finally:
            waiting.cancel()
            with contextlib.suppress(ProcessLookupError, PermissionError):  # sudo is root's, and not ours to kill
                self._transport.close()


class _BridgePipes(asyncio.SubprocessProtocol):
    """Passes a child's bytes and its pace to a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._transport: asyncio.SubprocessTransport | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._bridge.data_received(data)
        else:
            self._bridge.complain(data)

    def pause_writing(self) -> None:
        self._bridge.pause()

    def resume_writing(self) -> None:
        self._bridge.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The child has ended and all it wrote has been read: `process_exited` comes before the last of its output."""
        assert self._transport is not None
        status = self._transport.get_returncode()
        self._transport.close()
        self._bridge.lost(128 - status if status is not None and status < 0 else status)
        self.gone.set()
