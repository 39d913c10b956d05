"""Copies on the caller's own machine: the same two rsyncs, the other end a child process."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, cast

from opsexec.hosts.bootstrap import argv, new_nonce, opening
from opsexec.hosts.local_session import become, session_environment
from opsexec.hosts.rsync import Bridge, NoRsync, Wire, run_rsync

if TYPE_CHECKING:
    from opsexec.hosts.local import LocalHost
    from opsexec.hosts.port import SyncPlan, SyncResult


async def sync_local(host: LocalHost, plan: SyncPlan) -> SyncResult:
    """Copy between two local trees under the plan's grants."""
    nonce = new_nonce()

    async def open_wire(bridge: Bridge) -> Wire:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.subprocess_exec(
            lambda: _BridgePipes(bridge),
            *become(plan.run_as),
            *argv(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=session_environment(host.name, plan.run_as),
            cwd="/",
            start_new_session=True,
        )
        wire = _PipeWire(cast(asyncio.SubprocessTransport, transport))
        wire.write(opening(nonce, "rsync_serve"))
        return wire

    try:
        return await run_rsync(plan, host.name, nonce, open_wire)
    except NoRsync:
        from opsexec.hosts.tar_sync import sync_by_tar

        return await sync_by_tar(host, plan)


class _PipeWire:
    """A Wire over a child's stdin and stdout."""

    def __init__(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self._input = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        self._output = cast(asyncio.ReadTransport, transport.get_pipe_transport(1))

    def write(self, data: bytes) -> None:
        self._input.write(data)

    def write_eof(self) -> None:
        self._input.write_eof()

    def pause_reading(self) -> None:
        self._output.pause_reading()

    def resume_reading(self) -> None:
        self._output.resume_reading()

    def close(self) -> None:
        self._transport.close()


class _BridgePipes(asyncio.SubprocessProtocol):
    """Passes a child's bytes and its pace to a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._bridge.data_received(data)
        else:
            self._bridge.complaint = (self._bridge.complaint + data)[-4096:]

    def pause_writing(self) -> None:
        self._bridge.pause()

    def resume_writing(self) -> None:
        self._bridge.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._bridge.lost(None)

    def process_exited(self) -> None:
        assert self._transport is not None
        self._bridge.lost(self._transport.get_returncode())
