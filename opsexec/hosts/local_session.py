"""A far session on this machine, over two pipes: how local steps become another user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Callable
from typing import TypeVar, cast

from opsexec.errors import ConnectionLost, HostUnsuitable, PrivilegeDenied
from opsexec.hosts.bootstrap import NO_PYTHON, argv, new_nonce, opening
from opsexec.hosts.session import FarSession

P = TypeVar("P", bound=asyncio.SubprocessProtocol)
OPEN_S = 15.0
"""Seconds a session may take to answer."""
GIVEN_UP_S = 1.0
"""Seconds that a process which never became a session gets to be gone."""
SUDO = ("sudo", "-n", "-H", "-u")
RUNUSER = ("runuser", "-u")


def become(user: str | None) -> list[str]:
    """Return the words before a command that make it run as `user` on this machine; none for the same user."""
    if user is None or _is_this(user):
        return []
    return [*RUNUSER, user, "--"] if os.geteuid() == 0 else [*SUDO, user, "--"]


def _is_this(user: str) -> bool:
    """Whether this process is that user already; a uid without an account is nobody's."""
    try:
        return user == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False


def session_environment(host: str, run_as: str | None) -> dict[str, str]:
    """Return what a session is started with: nothing of the caller's own but where it is. Raises PrivilegeDenied."""
    env = {name: os.environ[name] for name in ("PATH", "LANG", "XDG_RUNTIME_DIR") if name in os.environ}
    if run_as is None:
        return env | {n: os.environ[n] for n in ("HOME", "USER", "LOGNAME", "SHELL") if n in os.environ}
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError as error:
        raise PrivilegeDenied(f"there is no user {run_as!r}", host=host, hint="name an existing user") from error
    return env | {"HOME": entry.pw_dir, "USER": run_as, "LOGNAME": run_as, "SHELL": entry.pw_shell}


async def open_local_session(host: str, run_as: str | None) -> FarSession:
    """Start the far half as `run_as`. Raises PrivilegeDenied, or HostUnsuitable when this machine has no python3."""
    nonce = new_nonce()
    session = FarSession(host, nonce, run_as)
    transport, _ = await start_far(lambda: _Pipes(session), host, run_as)
    session.attach(_PipeStream(transport), opening(nonce))
    try:
        async with asyncio.timeout(OPEN_S):
            await session.ready
    except TimeoutError:
        await _end(session, transport)
        raise HostUnsuitable(
            f"no session within {OPEN_S:g} s", host=host, hint="does sudo, or the user's shell, wait for something?"
        ) from None
    except BaseException:  # a cancellation as well: it never became a session
        await _end(session, transport)
        raise
    return session


async def _end(session: FarSession, transport: asyncio.SubprocessTransport) -> None:
    """End what never became a session, and see it gone: a loop that ends before that never learns of it."""
    session.close()
    _give_up(transport)
    with contextlib.suppress(TimeoutError):  # sudo's ends when sudo looks
        async with asyncio.timeout(GIVEN_UP_S):
            await session.gone.wait()


async def start_far(protocol: Callable[[], P], host: str, run_as: str | None) -> tuple[asyncio.SubprocessTransport, P]:
    """Start a process on this machine that takes a far module on stdin, as `run_as`. Raises PrivilegeDenied.

    asyncio, cancelled while it starts a process, may wait for the pipes that the process holds open for ever. So the
    start goes on to its end, and what it gives is ended.
    """
    loop = asyncio.get_running_loop()
    starting = asyncio.ensure_future(
        loop.subprocess_exec(
            protocol,
            *become(run_as),
            *argv(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=session_environment(host, run_as),
            cwd="/",
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except FileNotFoundError as error:
        text = f"can't become {run_as}: {error.filename} is not on this machine"
        raise PrivilegeDenied(text, host=host, hint="install it, or leave run_as out") from error
    except asyncio.CancelledError:
        starting.add_done_callback(lambda done: None if done.exception() else _give_up(done.result()[0]))
        raise


def _give_up(transport: asyncio.SubprocessTransport) -> None:
    """End what never became a session; it may wait for something else than its input."""
    # Not ours to kill: sudo is root's, and ends when it next looks at its input or output, which are closed here.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        transport.close()


class _PipeStream:
    """The session's bytes to the process, and its end."""

    def __init__(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self._input = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))

    def write(self, data: bytes) -> None:
        self._input.write(data)

    def close(self) -> None:
        self._input.close()
        if self._transport.get_returncode() is None:
            # One that was stopped, by whom it runs as, would not see its input end, nor end what runs in it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGCONT)


class _Pipes(asyncio.SubprocessProtocol):
    """Passes what the process says to its session."""

    def __init__(self, session: FarSession) -> None:
        self._session = session
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._session.data_received(data)
        else:
            self._session.complaint = (self._session.complaint + data)[-4096:]

    def pause_writing(self) -> None:
        self._session.pause_writing()

    def resume_writing(self) -> None:
        self._session.resume_writing()

    def process_exited(self) -> None:
        assert self._transport is not None
        status = self._transport.get_returncode()
        session = self._session
        self._transport.close()
        session.fail(opening_failure(session, status))

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.gone.set()


def opening_failure(session: FarSession, status: int | None) -> ConnectionLost | HostUnsuitable | PrivilegeDenied:
    """Return the error for a session that ended by itself: why it never began, or that it broke."""
    if session.ready.done():
        return ConnectionLost(
            "the session on the host ended; whether its steps finished is unknown",
            host=session.host,
            hint="look, then resume",
        )
    return no_start(session.host, session.run_as, status, session.last_words)


def no_start(host: str, run_as: str | None, status: int | None, said: str) -> HostUnsuitable | PrivilegeDenied:
    """Return the error for a far module that ended before it spoke, with this status and last words."""
    if status == NO_PYTHON:
        return HostUnsuitable("no python3 (3.8 or newer) on the host", host=host, hint="install python3 there")
    if run_as is not None:
        return PrivilegeDenied(
            f"can't become {run_as}: {said or f'exit status {status}'}",
            host=host,
            hint=f"let this login run any command as {run_as} without a password (sudoers NOPASSWD)",
        )
    return HostUnsuitable(
        f"the login shell could not start a session: {said or f'exit status {status}'}",
        host=host,
        hint="check the login shell, and that /bin/sh and python3 exist",
    )
