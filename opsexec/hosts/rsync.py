"""Copying a tree with a local rsync whose other end runs on the host, over the connection that is already open.

rsync asks its "remote shell" for a stream; ours is a small connector that hands rsync's own pipes to this process,
which carries them over the open connection. There is no second login, and no copy in between.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from opsexec.errors import ConnectionLost, HostUnsuitable, OpsError, StepFailed, StepTimeout
from opsexec.far.message import pack_layers, pack_message, unpack_message
from opsexec.hosts.answers import as_error
from opsexec.hosts.port import SyncPlan, SyncResult

BLOCK = 256 << 10
READY_S = 20.0
"""Seconds the host's end may take to answer, and rsync to ask for it."""
_NOT_CHANGES = ("sending incremental", "sent ", "total size", "created directory")
_OPTION_LIMIT = 64


class NoRsync(Exception):
    """One side has no rsync: the caller takes the tar stream."""


class Wire(Protocol):
    """A byte stream to the host's end, as `open_wire` gives it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def write_eof(self) -> None:
        """Send no more."""
        ...

    def pause_reading(self) -> None:
        """Ask for no more bytes for now."""
        ...

    def resume_reading(self) -> None:
        """Take bytes again."""
        ...

    def close(self) -> None:
        """Close both directions; the host's end ends."""
        ...


class Bridge:
    """Carries bytes between rsync's pipes and a Wire, each way at the pace of the slower side."""

    def __init__(self, nonce: str, host: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._nonce = nonce.encode()
        self._host = host
        self._buffer = b""
        self._greeted = False
        self.answer: asyncio.Future[list[bytes]] = self._loop.create_future()
        self.closed: asyncio.Future[int | None] = self._loop.create_future()
        self.complaint = b""
        self._wire: Wire | None = None
        self._from = self._to = -1
        self._pending = bytearray()
        self._ended = False
        self._holding = False

    # -- from the wire --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the host: first its answer to the request, then what rsync says."""
        if self.answer.done() and self._to >= 0:
            self._deliver(data)
            return
        self._buffer += data
        if not self._greeted:
            at = self._buffer.find(self._nonce)
            if at < 0:
                return
            self._greeted = True
            self._buffer = self._buffer[at + len(self._nonce) :]
        if not self.answer.done() and len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) >= 4 + size:
                answer, self._buffer = unpack_message(self._buffer[4 : 4 + size]), self._buffer[4 + size :]
                self.answer.set_result(answer)

    def lost(self, status: int | None) -> None:
        """The wire is closed; `status` is the far program's, None when unknown."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionLost("the host's end of the copy did not start", host=self._host))
            self.answer.exception()  # it may have been given up already
        self._ended = True
        self._flush_end()
        if not self.closed.done():
            self.closed.set_result(status)

    def pause(self) -> None:
        """The wire takes no more for now."""
        self._holding = True
        if self._from >= 0:
            self._loop.remove_reader(self._from)

    def resume(self) -> None:
        """The wire takes more."""
        self._holding = False
        if self._from >= 0:
            self._loop.add_reader(self._from, self._readable)

    # -- rsync's pipes --------------------------------------------------------------------------------------------

    def join(self, wire: Wire, from_rsync: int, to_rsync: int) -> None:
        """Begin to carry; takes both file descriptors over."""
        self._wire, self._from, self._to = wire, from_rsync, to_rsync
        for fd in (from_rsync, to_rsync):
            os.set_blocking(fd, False)
        if not self._holding:
            self._loop.add_reader(from_rsync, self._readable)
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._deliver(data)
        self._flush_end()

    def _readable(self) -> None:
        assert self._wire is not None
        try:
            data = os.read(self._from, BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._wire.write(data)
            return
        self._loop.remove_reader(self._from)
        os.close(self._from)
        self._from = -1
        self._wire.write_eof()

    def _deliver(self, data: bytes) -> None:
        if self._to < 0:
            return
        if not self._pending:
            try:
                done = os.write(self._to, data)
            except BlockingIOError:
                done = 0
            except BrokenPipeError:
                self._close_to()
                return
            if done == len(data):
                return
            data = data[done:]
            self._loop.add_writer(self._to, self._writable)
        self._pending += data
        if len(self._pending) > BLOCK and self._wire is not None:
            self._wire.pause_reading()

    def _writable(self) -> None:
        try:
            done = os.write(self._to, self._pending)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close_to()
            return
        del self._pending[:done]
        if not self._pending:
            self._loop.remove_writer(self._to)
            if self._wire is not None and not self._ended:
                self._wire.resume_reading()
            self._flush_end()

    def _flush_end(self) -> None:
        if self._ended and not self._pending:
            self._close_to()

    def _close_to(self) -> None:
        if self._to >= 0:
            self._loop.remove_writer(self._to)
            os.close(self._to)
            self._to = -1
            self._pending.clear()

    def close(self) -> None:
        """Let go of rsync's pipes and of the wire."""
        if self._from >= 0:
            self._loop.remove_reader(self._from)
            os.close(self._from)
            self._from = -1
        self._close_to()
        if self._wire is not None:
            self._wire.close()


def local_rsync() -> str:
    """Return this machine's rsync; raises NoRsync."""
    found = shutil.which("rsync")
    if found is None:
        raise NoRsync("this machine has no rsync")
    return found


def rsync_argv(plan: SyncPlan, connector: str) -> list[str]:
    """Return the local rsync's argv for a plan. The remote path is a stand-in: the real one goes by the request."""
    words = [local_rsync(), "--archive", "--itemize-changes", "--out-format=%i %n%L", "--no-motd", "-e", connector]
    if plan.delete:
        words.append("--delete")
    if plan.check:
        words.append("--dry-run")
    if plan.bandwidth_bytes_s is not None:
        words.append(f"--bwlimit={max(1, plan.bandwidth_bytes_s // 1024)}")
    words += [f"--exclude={pattern}" for pattern in plan.excludes]
    remote = "host:/copy/" if plan.remote.endswith("/") else "host:/copy"
    local = plan.local if plan.local.startswith(("/", "./", "../")) else f"./{plan.local}"
    return [*words, "--", local, remote] if plan.direction == "push" else [*words, "--", remote, local]


async def run_rsync(
    plan: SyncPlan, host: str, nonce: str, open_wire: Callable[[Bridge], asyncio.Future[Wire] | object]
) -> SyncResult:
    """Run one copy. `open_wire(bridge)` is awaited for the stream to the host's end, whose output feeds the bridge.

    Raises NoRsync before anything was copied, StepTimeout, StepFailed with rsync's own words.
    """
    ours, theirs = socket.socketpair()
    connector = f"{sys.executable} -I -S {Path(__file__).with_name('rsync_connector.py')} {theirs.fileno()}"
    bridge = Bridge(nonce, host)
    process: asyncio.subprocess.Process | None = None
    try:
        ours.setblocking(False)
        argv = rsync_argv(plan, connector)
        async with asyncio.timeout(plan.timeout_s):
            opening = asyncio.ensure_future(open_wire(bridge))  # type: ignore[arg-type]  # any awaitable
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env={"PATH": os.environ.get("PATH", os.defpath), "RSYNC_PROTECT_ARGS": "0", "LC_ALL": "C.UTF-8"},
                    start_new_session=True,
                )
                theirs.close()
                wire = await opening
            finally:
                if not opening.done():
                    opening.cancel()
            said = asyncio.create_task(process.communicate())
            try:
                await _join(bridge, wire, ours, plan, said, host)  # type: ignore[arg-type]  # as above
                stdout, stderr = await said
            finally:
                if not said.done():
                    said.cancel()
                    await asyncio.wait([said])
    except TimeoutError as error:
        raise StepTimeout(f"the copy took over {plan.timeout_s:g} s", host=host, hint="raise timeout_s") from error
    finally:
        bridge.close()
        ours.close()
        theirs.close()
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
    return _result(process.returncode, stdout, stderr, bridge, host)


async def _join(
    bridge: Bridge,
    wire: Wire,
    ours: socket.socket,
    plan: SyncPlan,
    said: asyncio.Task[tuple[bytes, bytes]],
    host: str,
) -> None:
    """Take rsync's pipes from the connector, put the request to the host, and let the bytes flow."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(ours.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await asyncio.wait([ready, said], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(ours.fileno())
    if said.done():
        return  # rsync refused by itself (a source that isn't there): its words say why
    if not ready.done():
        raise HostUnsuitable(f"rsync did not start within {READY_S:g} s", host=host)
    words, fds, _, _ = socket.recv_fds(ours, 65536, 2)
    if len(fds) != 2:
        return
    try:
        wire.write(request(plan, server_options(words.split(b"\0"), host)))
        async with asyncio.timeout(READY_S):
            kind, *rest = await bridge.answer
        if kind != b"ok":
            code, text, *details = (os.fsdecode(item) for item in rest)
            if code == "no_rsync":
                raise NoRsync(text)
            raise as_error(code, text, details, host=host)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    bridge.join(wire, *fds)
    status = await bridge.closed
    try:
        ours.send(bytes([255 if status is None else status & 255]))
    except OSError:
        return  # the connector is gone with its rsync, whose status says how it went


def server_options(words: Sequence[bytes], host: str) -> list[bytes]:
    """Return the options of `rsync --server` out of what the local rsync asks to run; the paths are left out."""
    try:
        at = words.index(b"--server")
    except ValueError:
        raise OpsError("the local rsync asked for something else than a server", host=host) from None
    options = []
    for word in words[at + 1 :]:
        if word == b".":
            break
        options.append(word)
    if len(options) > _OPTION_LIMIT or any(not word.startswith(b"-") for word in options):
        raise OpsError("the local rsync asked for options that are not understood", host=host)
    return options


def request(plan: SyncPlan, options: Sequence[bytes]) -> bytes:
    """Return what is sent to the host's end: which place, under which grants, with which options."""
    message = pack_message(
        [
            plan.run.encode(),
            f"sync.{plan.direction}".encode(),
            os.fsencode(plan.remote),
            pack_layers(plan.grants),
            *options,
        ]
    )
    return len(message).to_bytes(4, "big") + message


def _result(status: int | None, stdout: bytes, stderr: bytes, bridge: Bridge, host: str) -> SyncResult:
    lines = stdout.decode("utf-8", "replace").splitlines()
    changes = tuple(line for line in lines if line and not line.startswith(_NOT_CHANGES))
    if status == 0:
        return SyncResult(changes=changes, method="rsync")
    said = (bridge.complaint + stderr).decode("utf-8", "replace").strip()
    reason = next((line for line in said.splitlines() if line.startswith("rsync")), said[:200])
    raise StepFailed(
        f"rsync ended with status {status}: {reason}", host=host, hint="rsync(1) EXIT VALUES; what was copied stays"
    )
