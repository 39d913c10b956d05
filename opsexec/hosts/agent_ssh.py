"""Reaching an agent's unix socket through sshd (direct-streamlocal): the agent sees the SSH login's own user."""

from __future__ import annotations

import asyncio
from typing import Any

from opsexec.errors import ConnectionLost, HostUnreachable, OpsError
from opsexec.hosts.agent_link import AgentLink
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.ssh import SshHost
from opsexec.hosts.ssh_login import SshAddress, SshOptions

OPEN_S = 20.0


class SshWay:
    """Through one SSH connection, a channel for each link."""

    half_closes = True

    def __init__(self, address: SshAddress, options: SshOptions, path: str) -> None:
        self._ssh = SshHost(address, options)
        self._path = path

    async def open(self, host: str) -> AgentLink:
        """Open a channel to the agent's socket; raises HostUnreachable."""
        try:
            connection = await self._ssh.connection()
        except OpsError as error:
            error.host = host
            raise
        try:
            async with asyncio.timeout(OPEN_S):
                _, channel = await connection.create_unix_connection(lambda: _Channel(host), self._path, encoding=None)
        except TimeoutError as error:
            raise HostUnreachable(f"sshd opened no channel within {OPEN_S:g} s", host=host) from error
        except asyncssh.Error as error:
            text = f"sshd can't reach the agent's socket {self._path}: {error.reason or type(error).__name__}"
            hint = (
                "is ops-agent running there, may the login open its socket, does sshd allow AllowStreamLocalForwarding?"
            )
            raise HostUnreachable(text, host=host, hint=hint) from error
        assert isinstance(channel, _Channel)
        return channel.link

    async def aclose(self) -> None:
        """Close the SSH connection."""
        await self._ssh.aclose()


class _Channel(asyncssh.SSHUNIXSession[bytes]):
    """Hands an SSH channel's callbacks on to a link."""

    def __init__(self, host: str) -> None:
        self.link = AgentLink(host)
        self._host = host

    def connection_made(self, chan: Any) -> None:
        self.link.connection_made(chan)

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.link.data_received(data)

    def eof_received(self) -> bool:
        self.link.abort(ConnectionLost("the agent closed the connection", host=self._host))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.connection_lost(exc)

    def pause_writing(self) -> None:
        self.link.pause_writing()

    def resume_writing(self) -> None:
        self.link.resume_writing()
