"""Opening one channel on an open connection, so that a caller who gives up meanwhile leaves none behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from opsexec.hosts.asyncssh_loader import asyncssh

if TYPE_CHECKING:
    Channel = asyncssh.SSHClientChannel[bytes]
    Session = asyncssh.SSHClientSession[bytes]

WINDOW_BYTES = 8 << 20
"""What sshd may send of a channel before it is told to go on. More than a run's own window (`frames.OUTPUT_WINDOW`),
which is what holds a program up when its output isn't taken: asyncssh's 2 MiB would hold it up in between."""


async def open_channel(
    connection: asyncssh.SSHClientConnection, session: Callable[[], Session], command: str
) -> Channel:
    """Start a command on the host and return its channel; raises asyncssh.Error.

    asyncssh forgets a channel whose opening is cancelled, and the host holds it on: ten of those are all that sshd
    allows (MaxSessions). So the opening goes on to its end, and what it gives is closed.
    """
    creating = asyncio.ensure_future(
        connection.create_session(session, command, encoding=None, request_pty=False, window=WINDOW_BYTES)
    )
    try:
        await asyncio.sleep(0)
        acknowledge_at_once(connection)
        channel, _ = await asyncio.shield(creating)
    except OSError as error:  # a connection that is reset meanwhile ends what waits on it with the socket's own error
        raise asyncssh.ConnectionLost(error.strerror or str(error)) from error
    except BaseException:  # a cancellation as well: a channel that opens later is closed then
        creating.add_done_callback(_close)
        raise
    return channel


def _close(creating: asyncio.Future[tuple[Channel, Session]]) -> None:
    if not creating.cancelled() and creating.exception() is None:
        creating.result()[0].close()


def acknowledge_at_once(connection: asyncssh.SSHClientConnection) -> None:
    """Answer the next packets with TCP acknowledgements that don't wait (tcp(7), TCP_QUICKACK; Linux only).

    sshd turns Nagle's algorithm off only when the first program starts (packet.c, ssh_packet_set_interactive). Until
    then its second small packet waits for our delayed acknowledgement of the first, 40 ms. To be called after sending,
    since what is sent makes the kernel delay again.
    """
    link = connection.get_extra_info("socket")
    if link is not None and hasattr(socket, "TCP_QUICKACK"):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
