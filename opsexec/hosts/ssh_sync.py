"""Copies over an SSH connection: a channel of its own for bulk, beside the far session's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opsexec.errors import HostUnreachable
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.bootstrap import new_nonce, opening
from opsexec.hosts.rsync import Bridge, NoRsync, Wire, run_rsync

if TYPE_CHECKING:
    from opsexec.hosts.port import SyncPlan, SyncResult
    from opsexec.hosts.ssh import SshHost


async def sync_over_ssh(host: SshHost, plan: SyncPlan) -> SyncResult:
    """Copy by rsync, or by a tar stream where either side has none."""
    nonce = new_nonce()

    async def open_wire(bridge: Bridge) -> Wire:
        connection = await host.connection()
        try:
            channel, _ = await connection.create_session(
                lambda: _BridgeChannel(bridge), host.start_line(plan.run_as), encoding=None, request_pty=False
            )
        except asyncssh.Error as error:
            raise HostUnreachable(f"the host refused a channel: {error.reason}", host=host.name) from error
        channel.write(opening(nonce, "rsync_serve"))
        return channel

    try:
        return await run_rsync(plan, host.name, nonce, open_wire)
    except NoRsync:
        from opsexec.hosts.tar_sync import sync_by_tar

        return await sync_by_tar(host, plan)


class _BridgeChannel(asyncssh.SSHClientSession[bytes]):
    """Passes a channel's bytes and its pace to a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._status: int | None = None

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype is None:
            self._bridge.data_received(data)
        else:
            self._bridge.complaint = (self._bridge.complaint + data)[-4096:]

    def pause_writing(self) -> None:
        self._bridge.pause()

    def resume_writing(self) -> None:
        self._bridge.resume()

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def connection_lost(self, exc: Exception | None) -> None:
        self._bridge.lost(self._status)
