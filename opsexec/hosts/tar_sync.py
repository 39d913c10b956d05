"""Copying a tree as a tar stream, where rsync can't carry it: the same meaning, checks and itemised answer.

The list of the source crosses first; the receiving end compares it with what is there and asks for the files it lacks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from opsexec.errors import OpsError, ProtocolError, StepFailed
from opsexec.far import copy_pipe
from opsexec.far.copy_request import PULL, PUSH, CopyRequest
from opsexec.far.message import as_bytes, as_text, unpack_message
from opsexec.hosts.answers import as_error
from opsexec.hosts.bridge import OpenFar, ended_early
from opsexec.hosts.carrying import Carried, carry
from opsexec.hosts.copy_process import CopyProcess
from opsexec.hosts.copy_report import CopyReport
from opsexec.hosts.port import SyncPlan, SyncResult


async def sync_by_tar(plan: SyncPlan, host: str, open_far: OpenFar) -> SyncResult:
    """Copy as a tar stream. Raises StepFailed with the reason, CapabilityDenied, ConnectionLost."""
    end = TarEnd(plan)
    carried = await carry(plan, host, "tar_serve", open_far, end)
    if end.failure is not None:
        raise _failure(end.failure, carried, host)
    if not end.done:
        carried.require_whole()
        raise OpsError(f"the copying process on this machine ended early: {end.stderr[-300:]}", host=host)
    problems = end.report.problems
    if problems:
        text = f"{len(problems)} entries could not be copied: {problems[0]}"
        raise StepFailed(text, host=host, hint="the rest was copied; " + "; ".join(problems[1:4]))
    return end.report.result("tar")


class TarEnd:
    """The local end: `opsexec.far.tar_local` in a process of its own, on two pipes."""

    def __init__(self, plan: SyncPlan) -> None:
        self._plan = plan
        self._process: CopyProcess | None = None
        self._ours: list[int] = []
        self._buffer = b""
        self.report = CopyReport()
        self.failure: list[str] | None = None
        self.done = False

    @property
    def stderr(self) -> str:
        """What it said about errors of its own."""
        return "" if self._process is None else self._process.stderr.decode("utf-8", "replace").strip()

    async def start(self) -> None:
        """As `LocalEnd.start`."""
        root = str(Path(__file__).parent.parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from opsexec.far.tar_local import main; main()"
        reading, to_process = os.pipe()
        from_process, writing = os.pipe()
        self._ours = [from_process, to_process]
        try:
            self._process = await CopyProcess.start(
                self._plan.run,
                [sys.executable, "-I", "-S", "-c", code, str(reading), str(writing)],
                self._output,
                pass_fds=[reading, writing],
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                stdin=self._request(),
            )
        finally:
            os.close(reading)
            os.close(writing)

    def _request(self) -> bytes:
        plan = self._plan
        excludes = [as_bytes(pattern) for pattern in plan.excludes]
        only = "" if plan.direction == "push" or plan.remote.endswith("/") else plan.remote.rpartition("/")[2]
        return CopyRequest(
            plan.run,
            PUSH if plan.direction == "push" else PULL,
            plan.local,
            (),
            [as_bytes(only), *excludes],
            check=plan.check,
            delete=plan.delete,
            rate=plan.bandwidth_bytes_s or 0,
        ).pack()[4:]

    async def streams(self) -> tuple[int, int, Sequence[bytes]]:
        """As `LocalEnd.streams`."""
        from_process, to_process = self._ours
        self._ours = []
        return from_process, to_process, [as_bytes(pattern) for pattern in self._plan.excludes]

    def far_ended(self, status: int | None) -> None:
        """As `LocalEnd.far_ended`: the end of its stream says it."""

    async def wait(self) -> None:
        """As `LocalEnd.wait`."""
        assert self._process is not None
        await self._process.wait()

    async def end(self) -> None:
        """As `LocalEnd.end`."""
        for fd in self._ours:
            os.close(fd)
        self._ours = []
        if self._process is not None:
            await self._process.end()

    def _output(self, data: bytes) -> None:
        """Take what it reports, frame by frame."""
        self._buffer += data
        while len(self._buffer) >= copy_pipe.HEADER.size:
            kind, size = copy_pipe.HEADER.unpack_from(self._buffer)
            end = copy_pipe.HEADER.size + size
            if len(self._buffer) < end:
                return
            payload, self._buffer = self._buffer[copy_pipe.HEADER.size : end], self._buffer[end:]
            self._frame(kind, payload)

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == copy_pipe.DONE:
            self.done = True
        elif kind == copy_pipe.FAILURE:
            self.failure = [as_text(item) for item in unpack_message(payload)]
        elif kind == copy_pipe.TOTAL:
            self.report.count = int.from_bytes(payload, "big")
        elif kind in (copy_pipe.CHANGES, copy_pipe.SKIPPED, copy_pipe.PROBLEM):
            take = {
                copy_pipe.CHANGES: self.report.change,
                copy_pipe.SKIPPED: self.report.skip,
                copy_pipe.PROBLEM: self.report.problem,
            }[kind]
            for line in unpack_message(payload):
                take(line)


def _failure(failure: Sequence[str], carried: Carried, host: str) -> OpsError:
    """Return the error for what either end gave up with; `cut` is only what the other's end looks like."""
    if len(failure) < 3:
        return ProtocolError("the copy gave up without a reason", host=host)
    side, code, text, *details = failure
    if code == "cut":
        if carried.broken:
            return ended_early(host)
        text = f"the host's end of the copy ended early: {carried.said or text}"
        return StepFailed(text, host=host, hint="copy again")
    if side == "here" and code != "protocol":
        text = f"on this machine: {text}"
    return as_error(code, text, details, host=host)
