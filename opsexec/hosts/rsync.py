"""Copying a tree with a local rsync whose other end runs on the host, over the connection that is already open.

rsync asks its "remote shell" for a stream; ours is a small connector that hands rsync's own pipes to this process,
which carries them over the open connection. There is no second login, and no copy in between.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from opsexec.errors import HostUnsuitable, OpsError, StepFailed
from opsexec.hosts.bridge import OpenFar, ended_early
from opsexec.hosts.carrying import READY_S, Carried, TarNeeded, carry
from opsexec.hosts.copy_process import CopyProcess
from opsexec.hosts.copy_report import CopyReport
from opsexec.hosts.port import SyncPlan, SyncResult

IDLE_S = 120
"""Seconds without a byte after which rsync gives up, on either side: rsync itself says something much more often."""
MARK = "= "
"""What our lines in rsync's output begin with: nothing that it says by itself does."""
SKIPPING = (b"skipping non-regular file ", b"ignoring unsafe symlink ")
_NOT_SPOKEN = (1, 2)
"""rsync(1) EXIT VALUES: an option that it doesn't know, a protocol that is too old."""
_STALLED = 30
_OPTION_LIMIT = 64
_WORDS_LIMIT = 65536


async def sync_by_rsync(plan: SyncPlan, host: str, open_far: OpenFar) -> SyncResult:
    """Copy by rsync. Raises TarNeeded before anything was copied, StepFailed with rsync's own words, ConnectionLost."""
    end = RsyncEnd(plan, host)
    carried = await carry(plan, host, "rsync_serve", open_far, end)
    if end.status != 0:
        if carried.status in _NOT_SPOKEN and end.report.count == 0:
            raise TarNeeded("the host's rsync is too old for this one")
        raise _failure(end, carried, host)
    if b"made" in carried.details:
        end.report.made_top()
    return end.report.result("rsync")


def local_rsync() -> str:
    """Return this machine's rsync; raises TarNeeded."""
    found = shutil.which("rsync")
    if found is None:
        raise TarNeeded("this machine has no rsync")
    return found


def rsync_argv(plan: SyncPlan, connector: str) -> list[str]:
    """Return the local rsync's argv for a plan.

    The remote path is a stand-in, but for its last name, without which rsync refuses what comes (rsync(1),
    --trust-sender). Devices and other special files are never made; what comes from a host may not hold links that lead
    out (`--info=name1` makes rsync say so), nor set-id bits.
    """
    words = [local_rsync(), "--archive", "--no-D", "--itemize-changes", f"--out-format={MARK}%i %n%L", "--no-motd"]
    words += [f"--timeout={IDLE_S}", "-e", connector]
    if plan.delete:
        words.append("--delete")
    if plan.check:
        words.append("--dry-run")
    if plan.bandwidth_bytes_s is not None:
        words.append(f"--bwlimit={max(1, plan.bandwidth_bytes_s // 1024)}")
    words += [f"--exclude={pattern}" for pattern in plan.excludes]
    local = plan.local if plan.local.startswith(("/", "./", "../")) else f"./{plan.local}"
    if plan.direction == "push":
        return [*words, "--", local, "host:/copy/" if plan.remote.endswith("/") else "host:/copy"]
    name = "" if plan.remote.endswith("/") else plan.remote.rpartition("/")[2]
    if any(byte in name for byte in "*?[\\"):
        raise TarNeeded("rsync would take the name as a pattern")
    return [*words, "--safe-links", "--info=name1", "--chmod=Fug-s", "--", f"host:/copy/{name}", local]


def _quoted(word: str) -> str:
    """Return a word as rsync(1) takes it in --rsh, split at spaces: in quotes, where a quote itself is doubled."""
    return word if not set(word) & set(" '\"") else "'" + word.replace("'", "''") + "'"


class RsyncEnd:
    """The local rsync, with the connector that it starts as its remote shell."""

    def __init__(self, plan: SyncPlan, host: str) -> None:
        self._plan = plan
        self._host = host
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        try:
            connector = str(Path(__file__).with_name("rsync_connector.py"))
            words = [sys.executable, "-I", "-S", connector, str(self._theirs.fileno())]
            self._argv = rsync_argv(plan, " ".join(map(_quoted, words)))
        except BaseException:  # whatever it was: nobody else holds the pair
            self._close()
            raise
        self._process: CopyProcess | None = None
        self._line = b""
        self.report = CopyReport()

    @property
    def status(self) -> int | None:
        """rsync's exit status, or minus the number of the signal that ended it."""
        return None if self._process is None else self._process.status

    @property
    def stderr(self) -> str:
        """What rsync said about errors."""
        return "" if self._process is None else self._process.stderr.decode("utf-8", "replace")

    async def start(self) -> None:
        """As `LocalEnd.start`."""
        self._process = await CopyProcess.start(
            self._plan.run,
            self._argv,
            self._output,
            pass_fds=[self._theirs.fileno()],
            env={"PATH": os.environ.get("PATH", os.defpath), "RSYNC_PROTECT_ARGS": "0", "LC_ALL": "C.UTF-8"},
        )
        self._theirs.close()

    async def streams(self) -> tuple[int, int, Sequence[bytes]] | None:
        """As `LocalEnd.streams`: what the connector hands over."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[object] = loop.create_future()
        ended: asyncio.Future[object] = asyncio.ensure_future(self._process.wait())
        loop.add_reader(self._ours.fileno(), lambda: None if ready.done() else ready.set_result(None))
        try:
            await asyncio.wait([ready, ended], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._ours.fileno())
            ended.cancel()
        if not ready.done() and self.status is None:
            raise HostUnsuitable(f"rsync on this machine did not start within {READY_S:g} s", host=self._host)
        words, fds, _, _ = socket.recv_fds(self._ours, _WORDS_LIMIT, 2) if ready.done() else (b"", [], 0, None)
        if len(fds) != 2:
            for fd in fds:
                os.close(fd)
            return None  # rsync refused by itself: its words say why
        try:
            return fds[0], fds[1], server_options(words.split(b"\0"), self._host)
        except OpsError:
            os.close(fds[0])
            os.close(fds[1])
            raise

    def far_ended(self, status: int | None) -> None:
        """As `LocalEnd.far_ended`: rsync learns it from the connector's own status."""
        try:
            self._ours.send(bytes([255 if status is None else min(status, 255)]))
        except OSError:
            return  # the connector is gone with its rsync, whose status says how it went

    async def wait(self) -> None:
        """As `LocalEnd.wait`."""
        assert self._process is not None
        await self._process.wait()

    async def end(self) -> None:
        """As `LocalEnd.end`."""
        self._close()
        if self._process is not None:
            await self._process.end()

    def _close(self) -> None:
        self._ours.close()
        self._theirs.close()

    def _output(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[:_WORDS_LIMIT]
        for line in lines:
            if line.startswith(MARK.encode()):
                self.report.change(line[len(MARK) :])
            elif line.startswith(SKIPPING):
                self.report.skip(line)


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


def _failure(end: RsyncEnd, carried: Carried, host: str) -> OpsError:
    """Return why rsync failed: the wire, a signal, or what it says itself."""
    status = end.status or 0
    if carried.broken:
        return ended_early(host)
    if status < 0:
        return StepFailed(f"rsync on this machine was ended by {_signal_name(-status)}", host=host, hint="copy again")
    if carried.status is not None and 128 < carried.status <= 128 + signal.SIGRTMAX:
        name = _signal_name(carried.status - 128)
        return StepFailed(f"the host's rsync was ended by {name}", host=host, hint="look at the host's kernel log")
    if status == _STALLED:
        return ended_early(host)
    reason = _reason(end.stderr, carried.complaint)
    hint = "rsync(1) EXIT VALUES; what was copied stays"
    if "No space left" in reason or "quota exceeded" in reason:
        hint = "free space on that file system; what was copied stays"
    return StepFailed(f"rsync ended with status {status}: {reason}", host=host, hint=hint)


def _reason(here: str, there: str) -> str:
    """Return the line that says why: rsync writes `rsync: ...` about what happened, and at last a summary.

    What the host's rsync says of errors comes on its own stderr (rsync(1), --stderr), where a login may write too.
    """
    lines = [line for line in (*here.splitlines(), *there.splitlines()) if line.startswith("rsync")]
    told = [line for line in lines if line.startswith("rsync: ")] or [*here.splitlines(), *lines] or [""]
    full = next((line for line in told if "No space left" in line or "quota exceeded" in line), told[0])
    return full.strip()[:300] or "it gave no reason"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
