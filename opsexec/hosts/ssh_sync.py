"""Copies over an SSH connection: a channel of its own for bulk, beside the far session's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opsexec.errors import ConnectionLost, HostUnreachable
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.bootstrap import opening
from opsexec.hosts.bridge import Bridge, Wire
from opsexec.hosts.copies import copy_tree
from opsexec.hosts.ssh_channel import open_channel

if TYPE_CHECKING:
    from opsexec.hosts.port import SyncPlan, SyncResult
    from opsexec.hosts.ssh import SshHost

OPEN_S = 20.0
"""Seconds sshd may take to open a channel on an open connection."""
FREEING_S = 2.0
"""Seconds sshd may take to count a session that was closed as gone: its process has to end first."""
CLOSE_S = 1.0
"""Seconds to wait for sshd to confirm that a channel is closed; the host's end ends whether it does or not."""


async def sync_over_ssh(host: SshHost, plan: SyncPlan) -> SyncResult:
    """Copy by rsync, or by a tar stream where rsync can't carry it."""

    async def open_far(module: str, nonce: str, bridge: Bridge) -> Wire:
        connection = await host.connection()
        line = host.start_line(plan.run_as)
        try:
            async with asyncio.timeout(OPEN_S):
                channel = await _open(connection, lambda: _BridgeChannel(bridge), line)
        except TimeoutError:
            raise HostUnreachable(f"no channel for the copy within {OPEN_S:g} s", host=host.name) from None
        except asyncssh.Error as error:
            if connection.is_closed():
                text = f"the connection was lost before the copy began: {error.reason}"
                raise ConnectionLost(text, host=host.name, hint="nothing was copied; try again") from error
            text = f"the host refused a channel: {error.reason}"
            raise HostUnreachable(text, host=host.name, hint="see MaxSessions in its sshd_config") from error
        wire = _ChannelWire(channel)
        wire.write(opening(nonce, module))
        return wire

    return await copy_tree(plan, host.name, open_far, host.copying)


async def _open(
    connection: asyncssh.SSHClientConnection, session: Callable[[], asyncssh.SSHClientSession[bytes]], line: str
) -> asyncssh.SSHClientChannel[bytes]:
    """Open a channel; a refusal is final unless copies that have just ended may be what fills MaxSessions."""
    loop = asyncio.get_running_loop()
    until = loop.time() + FREEING_S
    while True:
        try:
            return await open_channel(connection, session, line)
        except asyncssh.ChannelOpenError:
            if connection.is_closed() or loop.time() > until:
                raise
        await asyncio.sleep(0.05)


class _ChannelWire:
    """A Wire over a channel. asyncssh raises for a channel that is gone; its bridge has been told by then."""

    def __init__(self, channel: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = channel

    def write(self, data: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(data)

    def write_eof(self) -> None:
        if not self._channel.is_closing():
            self._channel.write_eof()

    def pause_reading(self) -> None:
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._channel.resume_reading()

    def close(self) -> None:
        self._channel.abort()

    async def wait_closed(self) -> None:
        waiting = asyncio.ensure_future(self._channel.wait_closed())
        try:
            await asyncio.wait([waiting], timeout=CLOSE_S)
        finally:
            waiting.cancel()


class _BridgeChannel(asyncssh.SSHClientSession[bytes]):
    """Passes a channel's bytes and its pace to a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._status: int | None = None

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype is None:
            self._bridge.data_received(data)
        else:
            self._bridge.complain(data)

    def eof_received(self) -> bool:
        return True  # the other direction stays open until rsync here has ended it

    def pause_writing(self) -> None:
        self._bridge.pause()

    def resume_writing(self) -> None:
        self._bridge.resume()

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, name: str, core_dumped: bool, message: str, language: str) -> None:
        number = getattr(signal, f"SIG{name}", signal.SIGKILL)
        self._status = 128 + int(number)

    def connection_lost(self, exc: Exception | None) -> None:
        self._bridge.lost(self._status)
