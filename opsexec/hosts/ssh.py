"""A host over SSH: one connection, a far session per user on it, rsync's channel beside; reconnects between steps."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from opsexec.errors import ConnectionLost, HostUnreachable, OpsError
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.bootstrap import argv, new_nonce, opening, start_line
from opsexec.hosts.local_session import SUDO, opening_failure
from opsexec.hosts.session import FarSession, closed
from opsexec.hosts.ssh_channel import open_channel
from opsexec.hosts.ssh_login import Login, SshAddress, SshOptions, log_in

if TYPE_CHECKING:
    from opsexec.executor import TtySession
    from opsexec.hosts.port import ProcessExit, ProcessSpec, SyncPlan, SyncResult
    from opsexec.recorder import Recorder

FREEING_S = 2.0
"""Seconds sshd may take to count a session that was given up as gone: its process has to end first."""
COPIES = 4
"""How many copies are under way at once: each has a channel, and sshd allows ten (MaxSessions)."""
OPEN_S = 20.0
"""Seconds a far session may take to answer on an open connection."""


class SshHost:
    """A machine behind sshd. Implements the Host port; nothing is opened before the first call needs it."""

    def __init__(self, address: SshAddress, options: SshOptions, name: str | None = None) -> None:
        self.address = address
        self.options = options
        self._name = name or str(address)
        self._login: Login | None = None
        self._sessions: dict[str | None, FarSession] = {}
        self._opening = asyncio.Lock()
        self._gave_up_at = -FREEING_S
        self._closings = 0
        self.copying = asyncio.Semaphore(COPIES)

    @property
    def name(self) -> str:
        """How errors name it."""
        return self._name

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Return the open connection; opens it, or opens it again when it was lost."""
        closings = self._closings
        async with self._opening:
            return await self._connected(closings)

    async def _connected(self, closings: int) -> asyncssh.SSHClientConnection:
        """As `connection`; raises ConnectionLost where this was closed since it had been so often."""
        self._require_open(closings)
        if self._login is not None and self._login.connection.is_closed():
            self._drop(ConnectionLost("the connection was lost", host=self._name))
        if self._login is None:
            login = await log_in(self.address, self.options, self._name)
            if closings != self._closings:
                login.abort()
            self._require_open(closings)
            self._login = login
        return self._login.connection

    def _require_open(self, closings: int) -> None:
        """A step that was begun before `aclose` is not to run after it."""
        if closings != self._closings:
            raise closed(self._name)

    async def session(self, run_as: str | None = None) -> FarSession:
        """Return the far session of a user, opened on first use and again after it was lost."""
        session = self._sessions.get(run_as)
        if session is not None and session.lost is None:
            return session
        closings = self._closings
        async with self._opening:
            session = self._sessions.get(run_as)
            if session is None or session.lost is not None:
                session = self._sessions[run_as] = await self._open_session(run_as, closings)
            return session

    async def _open_session(self, run_as: str | None, closings: int) -> FarSession:
        connection = await self._connected(closings)
        nonce = new_nonce()
        session = FarSession(self._name, nonce, run_as)
        command = self.start_line(run_as)
        try:
            async with asyncio.timeout(OPEN_S):
                channel = await self._channel(connection, session, command)
                session.attach(_ChannelStream(channel), opening(nonce))
                await session.ready
            self._require_open(closings)
        except TimeoutError:
            session.close()
            raise HostUnreachable(
                f"no session within {OPEN_S:g} s", host=self._name, hint="does the login shell wait for something?"
            ) from None
        except asyncssh.ConnectionLost as error:
            session.close()
            text = f"the connection was lost while a session was opened: {error.reason}"
            raise ConnectionLost(text, host=self._name, hint="nothing was run; try again") from error
        except asyncssh.Error as error:
            session.close()
            text = f"the host refused a session: {error.reason}"
            raise HostUnreachable(text, host=self._name, hint="see MaxSessions in its sshd_config") from error
        except BaseException:  # a cancellation as well: the session is half open
            self._gave_up_at = session.loop.time()
            session.close()
            raise
        return session

    async def _channel(
        self, connection: asyncssh.SSHClientConnection, session: FarSession, command: str
    ) -> asyncssh.SSHClientChannel[bytes]:
        """Open a channel; a refusal is final unless sessions that were just given up may be what fills MaxSessions."""
        while True:
            try:
                return await open_channel(connection, lambda: _Channel(session), command)
            except asyncssh.ChannelOpenError:
                if session.loop.time() - self._gave_up_at > FREEING_S:
                    raise
            await asyncio.sleep(0.05)

    def start_line(self, run_as: str | None) -> str:
        """Return the start line for a user: root hands over with runuser, any other login asks sudo.

        `sudo` works for root too, but root may lack it and runuser is always there.
        """
        assert self._login is not None
        login_user = self._login.connection.get_extra_info("username")
        if run_as in (None, login_user):
            return start_line()
        assert run_as is not None
        prefix = ["runuser", "-u", run_as, "--"] if login_user == "root" else [*SUDO, run_as, "--"]
        return shlex.join([*prefix, *argv()])

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """As `Host.run_process`: one round trip on a warm session, whatever else runs on it."""
        session = self._sessions.get(spec.run_as)
        if session is None or session.lost is not None:
            session = await self.session(spec.run_as)
        return await session.run_process(spec, recorder, stdin)

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """As `Host.call`."""
        return await (await self.session(run_as)).call(operation, args)

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """As `Host.sync`: rsync over this connection, a tar stream where the host has no rsync."""
        from opsexec.hosts.ssh_sync import sync_over_ssh

        return await sync_over_ssh(self, plan)

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """As `Host.open_tty`."""
        from opsexec.hosts.far_terminal import FarTerminal

        return FarTerminal(await self.session(spec.run_as), spec, term, columns, rows)

    def _drop(self, error: OpsError) -> None:
        for session in self._sessions.values():
            session.fail(error)
        self._sessions.clear()
        if self._login is not None:
            self._login.abort()
            self._login = None

    async def aclose(self) -> None:
        """End what runs (the far half does that when its input closes) and close the connection."""
        self._closings += 1
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        login, self._login = self._login, None
        if login is not None:
            login.close()
            with contextlib.suppress(TimeoutError):  # a frozen peer never confirms; the socket is dropped below
                async with asyncio.timeout(2.0):
                    await login.connection.wait_closed()
                return
            login.abort()


class _ChannelStream:
    """The session's bytes to the host, and their end."""

    def __init__(self, channel: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = channel

    def write(self, data: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(data)

    def close(self) -> None:
        self._channel.close()


class _Channel(asyncssh.SSHClientSession[bytes]):
    """Passes what the host says to its far session."""

    def __init__(self, session: FarSession) -> None:
        self._session = session
        self._status: int | None = None

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype is None:
            self._session.data_received(data)
        else:
            self._session.complaint = (self._session.complaint + data)[-4096:]

    def pause_writing(self) -> None:
        self._session.pause_writing()

    def resume_writing(self) -> None:
        self._session.resume_writing()

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._session.complaint += f"\nended by SIG{signal}".encode()

    def connection_lost(self, exc: Exception | None) -> None:
        session = self._session
        session.gone.set()
        if exc is not None:
            session.fail(
                ConnectionLost(
                    "the connection was lost; whether its steps finished is unknown",
                    host=session.host,
                    hint="look, then resume",
                )
            )
            return
        session.fail(opening_failure(session, self._status))
