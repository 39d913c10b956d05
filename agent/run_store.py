"""Detached runs on disk: one directory each, which outlives the agent.

`run.json` says what was asked and by whom, `log` has the output as frames, `status` how it ended, `settled` that its
outcome is in the audit. `lock` is held by whoever brings the run on: the agent until it has started the runner, then
the runner to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from agent.keeping import Kept, surplus
from opsexec.errors import HostUnsuitable, UsageError
from opsexec.far.launch import KEPT
from opsexec.far.message import pack_message
from opsexec.far.tree_end import send
from opsexec.wire import ERR, HEAD_BYTES, OUT, is_run_id

ROOT = str(Path(__file__).parents[1])
_START = "import sys; sys.path.insert(0, {root!r}); from agent.runner import main; main({directory!r})"


WAIT_S = 1.0
"""Seconds that a runner gets to end which has written its status: it does nothing after that."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` holds. `request`: sha256 of what was asked: asking again is told from asking otherwise.

    `mark`: what the run's processes carry. `timeout_s`: its runner ends it after so many seconds.
    """

    run: str
    mark: str
    principal: str
    listener: str
    step: dict[str, Any]
    begun: float
    request: str
    timeout_s: float | None = None


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `status` holds. `status`: exit code or minus the signal's number; `error`: its code, text and details."""

    status: int | None = None
    error: list[str] = []
    duration_s: float = 0.0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    digest: str = ""
    log_bytes: int = 0


LOST = RunStatus(error=["lost", "its runner ended without a word; what ran is ended, how far it came is unknown"])


class RunStore:
    """The directories of all detached runs of one agent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._place = str(directory)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._runners: dict[str, subprocess.Popen[bytes]] = {}
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._beginning: dict[str, asyncio.Task[None]] = {}

    def path(self, run: str) -> Path:
        """Return a run's directory."""
        assert is_run_id(run)
        return self._directory / run

    def record(self, run: str) -> RunRecord | None:
        """Return what is known of a run; None when there is none, or it was never written down whole."""
        try:
            return msgspec.json.decode((self.path(run) / "run.json").read_bytes(), type=RunRecord)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            return None

    def is_known(self, run: str) -> bool:
        """True when a run of this id was ever written down here."""
        assert is_run_id(run)
        return os.access(f"{self._place}/{run}/run.json", os.F_OK)

    def records(self) -> list[RunRecord]:
        """Return all runs, the newest first."""
        found = (self.record(name) for name in os.listdir(self._directory) if is_run_id(name))
        return sorted((each for each in found if each is not None), key=lambda each: -each.begun)

    async def begin(self, run: str, work: Coroutine[Any, Any, None]) -> None:
        """Do what writes a run down and starts it; a caller who leaves meanwhile waits until it has come to its end."""
        task = self._beginning[run] = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._beginning.pop(run, None))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def begun(self, run: str) -> None:
        """Wait while a run is being written down and started, so that asking for it again finds it, or doesn't."""
        if (task := self._beginning.get(run)) is not None:
            await asyncio.wait([task])

    def create(self, record: RunRecord) -> int:
        """Write a run down and return its held lock; raises UsageError when its id is taken, HostUnsuitable for a disk.

        Whatever happens from here on, the run has a record.
        """
        path = self.path(record.run)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            text = f"the run {record.run} was asked for before: it is not run again"
            raise UsageError(text, hint="choose another run id") from error
        except OSError as error:
            raise _unwritable(error) from error
        fd = -1
        try:
            fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            (path / "log").touch(0o600)
            write_whole(path / "run.json", msgspec.json.encode(record))
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            shutil.rmtree(path, ignore_errors=True)
            raise _unwritable(error) from error
        return fd

    def start(self, run: str, lock: int, launch: bytes, user: str, quota: int, timeout_s: float | None) -> None:
        """Start the runner and hand it the lock; blocks while it takes what to run. Raises HostUnsuitable."""
        path = self.path(run)
        program = _START.format(root=ROOT, directory=str(path))
        try:
            with open(path / "runner.log", "wb") as said:
                runner = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=said,
                    cwd="/",
                    env={name: os.environ[name] for name in KEPT if name in os.environ},
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        except OSError as error:
            raise HostUnsuitable(f"the run's process can't be started: {error.strerror}") from error
        finally:
            os.close(lock)
        self._runners[run] = runner
        message = pack_message([launch, user.encode(), b"%d" % quota, repr(timeout_s or 0.0).encode()])
        _give(runner, message)

    def end_runner(self, run: str) -> None:
        """Ask a run's runner to end it; a runner that has gone, or is still starting, is left alone."""
        self._tell_runner(run, signal.SIGTERM)

    def wake_runner(self, run: str) -> None:
        """Have a runner that was stopped go on; nothing comes of it for any other."""
        self._tell_runner(run)

    def _tell_runner(self, run: str, *signals: signal.Signals) -> None:
        if not self.is_alive(run):
            return
        try:
            pid, start = (self.path(run) / "runner").read_text().split()
        except (FileNotFoundError, ValueError):
            return
        for number in (*signals, signal.SIGCONT):  # one that was stopped takes no other signal
            send(int(pid), start, number)

    def is_alive(self, run: str) -> bool:
        """True while someone holds the run's lock."""
        try:
            fd = os.open(self.path(run) / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def status(self, run: str) -> RunStatus | None:
        """Return how a run ended; None while it goes on. A run that lost its runner is LOST."""
        alive = self.is_alive(run)  # asked first: the status is written before the lock is let go
        try:
            return msgspec.json.decode((self.path(run) / "status").read_bytes(), type=RunStatus)
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            return None if alive else LOST

    def is_settled(self, run: str) -> bool:
        """True once the run's outcome is in the audit."""
        return (self.path(run) / "settled").exists()

    def settle(self, run: str, status: RunStatus) -> None:
        """Note that the outcome is in the audit; a LOST run gets its status here."""
        path = self.path(run)
        if not (path / "status").exists():
            write_whole(path / "status", msgspec.json.encode(status))
        (path / "settled").touch(0o600)
        runner = self._runners.pop(run, None)
        if runner is not None:
            try:
                runner.wait(WAIT_S)
            except subprocess.TimeoutExpired:  # something has stopped it; it has said its last word
                self._leaving.append(runner)
        self._leaving = [each for each in self._leaving if each.poll() is None]

    def clear_unwritten(self) -> None:
        """Remove directories that a crash left before the run was written down: nobody was told of those."""
        for name in os.listdir(self._directory):
            if is_run_id(name) and not (self.path(name) / "run.json").exists() and not self.is_alive(name):
                shutil.rmtree(self.path(name))

    def prune(self, keep: int, max_bytes: int, spared: Collection[str] = ()) -> None:
        """Remove settled runs beyond `keep` and `max_bytes` of output, as `surplus` says, but never those `spared`."""
        kept = []
        for record in self.records():
            if record.run in spared or not self.is_settled(record.run):
                continue
            size = 0
            with contextlib.suppress(FileNotFoundError):  # somebody began to remove it
                size = (self.path(record.run) / "log").stat().st_size
            kept.append(Kept(record.run, record.principal, size))
        for run in surplus(kept, keep, max_bytes):
            path = self.path(run)
            (path / "run.json").unlink()  # first: what a crash leaves of the rest, `clear_unwritten` takes
            shutil.rmtree(path)

    def frame_start(self, run: str, offset: int) -> int:
        """Return where the frame that holds this byte of the log begins; the log's end for what lies beyond."""
        at = 0
        with open(self.path(run) / "log", "rb") as log:
            while len(head := log.read(HEAD_BYTES)) == HEAD_BYTES:
                after = at + HEAD_BYTES + int.from_bytes(head[1:], "big")
                if after > offset:
                    return at
                at = after
                log.seek(at)
        return at


def whole_frames(data: bytes) -> int:
    """Return how many of these bytes are whole frames, the first beginning them; raises ValueError for other bytes."""
    at = 0
    while at + HEAD_BYTES <= len(data):
        if data[at] not in (OUT, ERR):
            raise ValueError("the log is damaged")
        after = at + HEAD_BYTES + int.from_bytes(data[at + 1 : at + HEAD_BYTES], "big")
        if after > len(data):
            break
        at = after
    return at


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _give(runner: subprocess.Popen[bytes], message: bytes) -> None:
    assert runner.stdin is not None
    try:
        with runner.stdin as stdin:
            stdin.write(message)
    except BrokenPipeError:
        return  # it died: the run settles as lost


def _unwritable(error: OSError) -> HostUnsuitable:
    return HostUnsuitable(f"the run can't be written down: {error.strerror}", hint="make room in the agent's state_dir")
