"""The host's end of one copy, between a request's body and its answer.

The far module is the same as over SSH: it walks to the place under the grants that *this* agent found, and is held
there by the kernel. The caller's words only say how rsync talks; the step, which is audited, says what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Awaitable, Callable
from typing import Any, cast

from agent.answer import Answer
from agent.body import Body
from opsexec.errors import HostUnsuitable, ProtocolError, StepTimeout
from opsexec.far.copy_request import PULL, PUSH, CopyRequest
from opsexec.far.frames import GRACE_S
from opsexec.far.message import as_bytes, as_text, unpack_message
from opsexec.far.tree_end import end_now
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.registry import Handler
from opsexec.handlers.sync import plan_of
from opsexec.host_executor import HostExecutor
from opsexec.hosts.answers import as_error
from opsexec.hosts.bootstrap import new_nonce, opening
from opsexec.hosts.bridge import BLOCK, MAX_ANSWER, MAX_COMPLAINT, MAX_NOISE
from opsexec.hosts.local_session import no_start, start_far
from opsexec.hosts.port import ProcessExit, SyncPlan
from opsexec.steps.base import Step
from opsexec.steps.sync import Sync
from opsexec.wire import ERR, OUT, frame
from opsexec.wire_copy import MODULES, CopyWords

READY_S = 20.0
"""Seconds the far module may take to say whether it may."""
LEAVE_S = 2.0
"""Seconds it gets to end by itself, with all it started, once its pipes are closed."""
DELETING = b"--delete"


class CopyExecutor(HostExecutor):
    """Admits and audits a Push or Pull as any executor does; its copy is this host's end alone."""

    def __init__(self, far: FarCopy, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._far = far

    def _handler(self, step: Step) -> Handler:
        return self._carry

    async def _carry(self, step: Sync, context: Context) -> Outcome:
        far = self._far
        try:
            status = await far.carry(plan_of(step, context))
        finally:
            context.recorder.counts[0] = far.sent
        return Outcome(exit=ProcessExit(status, None), skipped=far.turned_down)

    def _append_outcome(self, base: dict[str, Any], outcome: dict[str, Any]) -> None:
        """Say how much went which way; what it changed is known at the receiving end alone."""
        for name in ("changed", "digest", "stdout_bytes", "stderr_bytes"):
            outcome.pop(name, None)
        far = self._far
        bytes_moved = {"received_bytes": far.received, "sent_bytes": far.sent}
        super()._append_outcome(base, {**outcome, "method": far.words.method, **bytes_moved})


class FarCopy:
    """One far module's process. `sent`, `received`: bytes of the copy to and from the caller."""

    def __init__(self, host: str, mark: str, words: CopyWords, body: Body, answer: Answer) -> None:
        self._host = host
        self._mark = mark
        self.words = words
        self._body = body
        self._answer = answer
        self._complaint = b""
        self.sent = 0
        self.received = 0
        self.turned_down: str | None = None
        """Why a tar stream is needed instead; nothing was copied then."""

    async def carry(self, plan: SyncPlan) -> int:
        """Copy, and return the status of the host's end.

        Raises CapabilityDenied and what else the far module finds on its way, StepTimeout, ProtocolError.
        """
        request = self._request(plan)
        nonce = new_nonce()
        try:
            async with asyncio.timeout(plan.timeout_s) as deadline:
                loop = asyncio.get_running_loop()
                transport, pipes = await start_far(
                    lambda: SubprocessStreamProtocol(limit=BLOCK, loop=loop), self._host, plan.run_as
                )
                process = asyncio.subprocess.Process(transport, pipes, loop)
                try:
                    return await self._attend(process, opening(nonce, MODULES[self.words.method]), nonce, request, plan)
                finally:
                    await self._end(process, transport)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            text = f"the copy took over {plan.timeout_s:g} s; what was copied so far stays"
            raise StepTimeout(text, host=self._host, hint="raise timeout_s") from error

    def _request(self, plan: SyncPlan) -> CopyRequest:
        """Return what the far module is asked: the step's own fields and this agent's grants, never the caller's."""
        if self.words.method == "rsync":
            _require_as_asked(self.words.words, plan)
            words = list(self.words.words)
        else:
            words = [as_bytes(pattern) for pattern in plan.excludes]
        return CopyRequest(
            self._mark,
            PUSH if plan.direction == "push" else PULL,
            plan.remote,
            plan.grants,
            words,
            check=plan.check,
            delete=plan.delete,
            tree=self.words.tree,
            rate=plan.bandwidth_bytes_s or 0,
        )

    async def _attend(
        self, process: asyncio.subprocess.Process, program: bytes, nonce: str, request: CopyRequest, plan: SyncPlan
    ) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        complaining = asyncio.create_task(self._pass_complaints(process))
        carrying: list[asyncio.Task[None]] = []
        try:
            process.stdin.write(program + request.pack())
            granted, answer = await self._hear(process, nonce, plan)
            await self._answer.write_frames(frame(OUT, answer))
            if not granted:
                return 0
            outward = asyncio.create_task(self._pass_on(process.stdout))
            inward = asyncio.create_task(self._pass_in(process.stdin))
            carrying += [outward, inward]
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            if not outward.done():
                await inward  # raises when the caller's end broke off; else it has said all it had to say
            await outward
            await complaining
            return await _status(process)
        finally:
            for task in (*carrying, complaining):
                task.cancel()
            await asyncio.wait([*carrying, complaining])

    async def _hear(self, process: asyncio.subprocess.Process, nonce: str, plan: SyncPlan) -> tuple[bool, bytes]:
        """Return whether the far module may copy, with its answer as it stands; raises why not, unless tar could."""
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                await _greeted(process.stdout, nonce.encode())
                size = await process.stdout.readexactly(4)
                if int.from_bytes(size, "big") > MAX_ANSWER:
                    raise ProtocolError("the host's end of the copy sent no answer", host=self._host)
                data = await process.stdout.readexactly(int.from_bytes(size, "big"))
        except TimeoutError as error:
            text = f"the host's end of the copy did not answer within {READY_S:g} s"
            raise HostUnsuitable(text, host=self._host, hint="does sudo wait for something?") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError("the host's end of the copy sent no answer", host=self._host) from error
        except asyncio.IncompleteReadError as error:
            said = self._complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise no_start(self._host, plan.run_as, await _status(process), said) from error
        kind, *rest = unpack_message(data)
        if kind == b"ok":
            return True, size + data
        code, text, *details = [as_text(item) for item in rest] + [""] * (2 - len(rest))
        if code != "take_tar":
            raise as_error(code, text, details, host=self._host)
        self.turned_down = text
        return False, size + data

    async def _pass_on(self, stdout: asyncio.StreamReader) -> None:
        while data := await stdout.read(BLOCK):
            await self._answer.write_frames(frame(OUT, data))
            self.sent += len(data)

    async def _pass_complaints(self, process: asyncio.subprocess.Process) -> None:
        """Pass on what its stderr says, up to a bound; the rest is read and dropped, or it would stand still."""
        assert process.stderr is not None
        while data := await process.stderr.read(BLOCK):
            data = data[: MAX_COMPLAINT - len(self._complaint)]
            self._complaint += data
            if data:
                await self._answer.write_frames(frame(ERR, data))

    async def _pass_in(self, stdin: asyncio.StreamWriter) -> None:
        """Give it what the caller's end says; when it takes no more, what still comes is read and dropped."""
        async for data in self._body.stdin():
            self.received += len(data)
            if not stdin.is_closing():
                stdin.write(data)
                await _dropped_if_gone(stdin.drain)
        if not stdin.is_closing():
            stdin.write_eof()

    async def _end(self, process: asyncio.subprocess.Process, transport: asyncio.SubprocessTransport) -> None:
        """Close its pipes, which it notices, wait for its end, and end what is left by its mark."""
        for fd in (0, 1, 2):
            pipe = cast("asyncio.Transport | None", transport.get_pipe_transport(fd))
            if pipe is not None:
                pipe.abort() if fd == 0 and not pipe.is_closing() else pipe.close()
        try:
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
        except TimeoutError:
            await asyncio.to_thread(end_now, [(self._mark, 0)], GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # sudo is root's, and not ours to kill
                transport.close()


def _require_as_asked(options: tuple[bytes, ...], plan: SyncPlan) -> None:
    """Raise ProtocolError when rsync's words do other than the step, which is what was judged and audited, says."""
    packed = [option.partition(b"e")[0] for option in options if option[:1] == b"-" and option[:2] != b"--"]
    if any(b"n" in letters for letters in packed) != plan.check:
        raise ProtocolError("rsync's options and the step differ about check mode")
    if any(option.startswith(DELETING) for option in options) and not plan.delete:
        raise ProtocolError("rsync's options delete, which the step doesn't ask for")


async def _greeted(stdout: asyncio.StreamReader, nonce: bytes) -> None:
    """Read up to the far module's first word; what comes before it is noise of the login's shell."""
    seen = b""
    while not seen.endswith(nonce):
        seen = seen[-MAX_NOISE:] + await stdout.readuntil(b"\n")


async def _status(process: asyncio.subprocess.Process) -> int:
    status = await process.wait()
    return 128 - status if status < 0 else status


async def _dropped_if_gone(drain: Callable[[], Awaitable[None]]) -> None:
    try:
        await drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # its status says why it takes no more
