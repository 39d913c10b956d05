"""Where a host's container engine listens, as a unix socket on this machine: its own, or one that SSH forwards."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opsexec.errors import ConnectionLost, HostUnreachable, HostUnsuitable, UsageError
from opsexec.hosts.port import Behind

if TYPE_CHECKING:
    import asyncssh

    from opsexec.hosts.port import Host

DEFAULT = "/var/run/docker.sock"
"""Where dockerd listens when it isn't told otherwise (dockerd(8), --host)."""
VARIABLE = "DOCKER_HOST"
PROBE_S = 20.0
"""Seconds that a host behind SSH may take to say where its engine is, and to connect to it."""


_known: WeakKeyDictionary[asyncssh.SSHClientConnection, str] = WeakKeyDictionary()
"""Where the engine is, by connection: asked once for each."""


@asynccontextmanager
async def engine_socket(host: Host) -> AsyncIterator[tuple[str, str]]:
    """Lend the engine's socket: (its path on this machine, its path on the host).

    Behind SSH it is a socket in a directory that only this user may enter, each connection to which is forwarded over
    the connection that is open; nothing else logs in. Raises HostUnsuitable where there is no engine, UsageError for
    one that is to be asked over a network, or where no socket can be made here; and ConnectionLost in place of a
    HostUnsuitable of its user's once the connection behind it is closed.
    """
    if not isinstance(host, Behind):
        path = socket_of(os.environ.get(VARIABLE, ""), host.name)
        _require_trusted(path, host.name)
        yield path, path
        return
    connection = await host.connection()
    path = _known.get(connection) or await _ask(connection, host.name)
    _known[connection] = path
    from opsexec.engine.forwarded import forwarded

    async with AsyncExitStack() as held:
        try:
            near = held.enter_context(tempfile.TemporaryDirectory(prefix="opsexec-engine-")) + "/s"
            await held.enter_async_context(forwarded(connection, near, path))
        except OSError as error:  # an address of a unix socket that is too long has no number
            text = f"no socket can be made here to its container engine: {error.strerror or error}"
            raise UsageError(text, host=host.name, hint="set TMPDIR to a short path that may be written to") from error
        try:
            yield near, path
        except HostUnsuitable as error:
            if not connection.is_closed():
                raise
            text = "the connection was lost while its container engine was asked; whether that was done is unknown"
            raise ConnectionLost(text, host=host.name, hint="look, then try again") from error


def socket_of(address: str, host: str) -> str:
    """Return the socket that DOCKER_HOST names; raises UsageError for any address but a unix socket's."""
    if not address:
        return DEFAULT
    if not address.startswith("unix:///") or "\0" in address:
        shown = address[:80] if address.isprintable() else "(not printable)"
        hint = "a network engine proves nobody's identity; name a socket, like unix:///var/run/docker.sock"
        raise UsageError(f"{VARIABLE} is {shown}, not a unix socket", host=host, hint=hint)
    return address.removeprefix("unix://")


def _require_trusted(path: str, host: str) -> None:
    """Raise HostUnsuitable unless root's or this user's socket stands there: secrets are handed to who answers."""
    try:
        status = os.stat(path)
    except OSError as error:
        text = f"no container engine at {path}: {os.strerror(error.errno or 0)}"
        raise HostUnsuitable(text, host=host, hint=f"is dockerd running? {VARIABLE} names another socket") from error
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        text = f"{path} is not a socket of root's or this user's own"
        hint = f"what is sent there could be read by who made it; {VARIABLE} names another socket"
        raise HostUnsuitable(text, host=host, hint=hint)


async def _ask(connection: asyncssh.SSHClientConnection, host: str) -> str:
    """Return where the login's engine listens, once a connection to it came about."""
    import asyncssh

    path = None
    try:
        async with asyncio.timeout(PROBE_S):
            said = await connection.run(f"printenv {VARIABLE}", check=False, encoding=None)
            words = said.stdout.strip() if isinstance(said.stdout, bytes) else b""
            path = socket_of(words[:4096].decode("utf-8", "replace"), host)
            _, writer = await connection.open_unix_connection(path)
            writer.close()
    except TimeoutError as error:
        raise HostUnsuitable(f"its container engine can't be reached within {PROBE_S:g} s", host=host) from error
    except asyncssh.Error as error:
        if connection.is_closed() or not isinstance(error, asyncssh.ChannelOpenError):
            raise ConnectionLost(f"the connection was lost: {error.reason}", host=host, hint="try again") from error
        if path is None:
            text = f"the host refused a session: {error.reason}"
            raise HostUnreachable(text, host=host, hint="see MaxSessions in its sshd_config") from error
        text = f"its container engine at {path} can't be reached: {error.reason}"
        hint = f"dockerd, {VARIABLE}, the login's right to the socket, sshd's AllowStreamLocalForwarding: is all there?"
        raise HostUnsuitable(text, host=host, hint=hint) from error
    return path
