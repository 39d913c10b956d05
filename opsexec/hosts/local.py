"""The caller's own machine: processes are started directly, file operations run in a worker thread.

A step that runs as another user goes through a far session which *is* that user (sudo -n, or runuser when root).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from opsexec.errors import LimitExceeded, OpsError, StepTimeout
from opsexec.far import frames
from opsexec.far.launch import kept_environment
from opsexec.far.message import FarError, as_bytes, as_text, unpack_message
from opsexec.far.perform import perform
from opsexec.far.tree_end import TreeEnd
from opsexec.far.wanted import ask_for
from opsexec.hosts.answers import as_error
from opsexec.hosts.aside import Aside
from opsexec.hosts.local_process import LocalProcess
from opsexec.hosts.local_start import SYSTEM_PLACES, Start, Started
from opsexec.hosts.local_vfork import vfork_exec
from opsexec.hosts.poller import Poller
from opsexec.hosts.port import ProcessExit, ProcessSpec, SyncPlan, SyncResult
from opsexec.hosts.session import as_exit, as_launch, closed, survived
from opsexec.hosts.spawner import Spawner
from opsexec.hosts.watchdog import Watchdog

if TYPE_CHECKING:
    from opsexec.executor import TtySession
    from opsexec.far.launch import Launch
    from opsexec.hosts.session import FarSession
    from opsexec.recorder import Recorder


class LocalHost:
    """This machine. Implements the Host port."""

    def __init__(self, name: str = "local") -> None:
        self._name = name
        self._sessions: dict[str | None, FarSession] = {}
        self._opening = asyncio.Lock()
        self._processes: set[LocalProcess] = set()
        self._under_way = 0
        self._closings = 0
        self._spawner: Spawner | None = None
        self._kept = kept_environment()
        vfork_exec()  # now, while there are descriptors to be had
        self._poller: Poller | None = None
        self._aside = Aside()
        self._idle: asyncio.Event | None = None

    @property
    def name(self) -> str:
        """How errors name it."""
        return self._name

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """As `Host.run_process`."""
        if spec.run_as is not None:
            return await (await self._session(spec.run_as)).run_process(spec, recorder, stdin)
        closings = self._closings
        if spec.cwd is not None or not spec.programs[0].startswith(SYSTEM_PLACES):
            await self._look_at_places(spec)
        launch = as_launch(spec, stdin is not None)
        watchdog = Watchdog.get()
        slot = watchdog.open(spec.run)
        self._under_way += 1
        try:
            try:
                started, abandoned = await self._start(launch)
            except FarError as error:
                raise as_error(error.code, error.text, list(error.details), host=self._name) from error
            watchdog.began(slot, spec.run, started.child.pid)
            process = LocalProcess(started, launch, recorder, self._polling())
            self._processes.add(process)
            try:
                if abandoned is not None:
                    await self._end(process, spec.run)
                    raise abandoned
                if closings != self._closings:
                    process.stop(closed(self._name))
                return await self._follow(process, spec, recorder, stdin)
            finally:
                self._processes.discard(process)
        finally:
            watchdog.done(slot)
            self._under_way -= 1
            if self._idle is not None and not self._under_way:
                self._idle.set()

    async def _start(self, launch: Launch) -> tuple[Started, asyncio.CancelledError | None]:
        """Start a program: here when it is alone, beside the loop while others run, who would have to stand still.

        Returns the cancellation too that came meanwhile: what has begun is to be ended before that goes on.
        """
        start = Start(launch, self._kept)
        cancelled: asyncio.CancelledError | None = None
        try:
            if self._processes:
                child, cancelled = await self._spawning().spawn(start)
            else:
                child = start.spawn_or_close()
        except OSError as error:
            raise start.explained(error) from error
        return start.took(child), cancelled

    def _spawning(self) -> Spawner:
        """Return the running loop's spawner."""
        if self._spawner is None or self._spawner.loop is not asyncio.get_running_loop():
            self._spawner = Spawner()
        return self._spawner

    async def _look_at_places(self, spec: ProcessSpec) -> None:
        """Look at the directory and the program beside the loop first: starting a program waits for both, in the loop.

        Where a file system hangs, this step alone hangs with it, and its deadline holds.
        """
        places = [*spec.programs, spec.cwd or "/"]
        try:
            async with asyncio.timeout(spec.timeout_s):
                await self._aside.do(lambda: [os.path.exists(as_bytes(place)) for place in places])
        except TimeoutError as error:
            text = f"no start within {spec.timeout_s:g} s: its directory or program can't be reached"
            raise StepTimeout(text, host=self._name, hint="is its file system there?") from error

    def _polling(self) -> Poller:
        """Return the running loop's poller."""
        if self._poller is None or self._poller.loop is not asyncio.get_running_loop():
            self._poller = Poller()
        return self._poller

    async def _follow(
        self, process: LocalProcess, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None
    ) -> ProcessExit:
        feeding = _begin_feeding(process, stdin) if stdin is not None else None
        try:
            if spec.timeout_s is None:
                await process.wait()
            else:
                try:
                    async with asyncio.timeout(spec.timeout_s):
                        await process.wait()
                except TimeoutError:
                    text = f"no end after {spec.timeout_s:g} s; its process tree was ended"
                    process.stop(StepTimeout(text, host=self._name, hint="raise timeout_s"))
        except asyncio.CancelledError:
            await self._end(process, spec.run)
            raise
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.wait([feeding])
        if recorder.over_limit:
            text = f"output is over the limit of {recorder.limit_bytes} bytes"
            process.stop(LimitExceeded(text, host=self._name, hint="its process tree was ended"))
        if process.why is not None or recorder.failure is not None:
            await self._end(process, spec.run)
        if process.why is not None:
            raise process.why
        if process.status is None:
            raise OpsError("the process ended without a status", host=self._name)
        return as_exit(process.status)

    async def _end(self, process: LocalProcess, run: str) -> None:
        """End the whole tree; scanning /proc is done in a thread, waiting here."""
        end = TreeEnd(run, process.pid, frames.GRACE_S, reaped=process.reaped)
        loop = asyncio.get_running_loop()
        try:
            while (wait := await loop.run_in_executor(None, end.step)) is not None:
                await asyncio.sleep(wait)
        except asyncio.CancelledError:
            while (wait := end.step()) is not None:  # cancelled again: finish at once, without yielding
                time.sleep(wait)
            raise
        finally:
            await process.close()
        if end.survivors:
            raise survived(end.survivors, self._name)

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """As `Host.call`."""
        if run_as is not None:
            return await (await self._session(run_as)).call(operation, args)
        gone = threading.Event()

        def do() -> bytes:
            ask_for(gone.is_set)
            return perform([operation.encode(), *args])

        try:
            answer = await self._aside.do(do)
        except asyncio.CancelledError:
            gone.set()  # the thread can't be ended: what takes long there leaves off by itself
            raise
        items = unpack_message(answer[1:])
        if answer[:1] == b"a":
            return items
        code, text, *details = (as_text(item) for item in items)
        raise as_error(code, text, details, host=self._name)

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """As `Host.sync`: rsync between two local trees; as another user, through that user's session."""
        from opsexec.hosts.local_sync import sync_local

        return await sync_local(self, plan)

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """As `Host.open_tty`; always through a far session, which holds the terminal's other end."""
        from opsexec.hosts.far_terminal import FarTerminal

        return FarTerminal(await self._session(spec.run_as), spec, term, columns, rows)

    async def _session(self, run_as: str | None) -> FarSession:
        """Return the far session of a user, opened on first use."""
        from opsexec.hosts.local_session import open_local_session

        async with self._opening:
            session = self._sessions.get(run_as)
            if session is None or session.lost is not None:
                session = self._sessions[run_as] = await open_local_session(self._name, run_as)
            return session

    async def aclose(self) -> None:
        """End what runs."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            session.close()
        self._closings += 1
        if self._under_way:
            self._idle = asyncio.Event()
            for process in self._processes:
                process.stop(closed(self._name))
            await self._idle.wait()
        for session in sessions:
            await session.wait_gone()
        self._aside.close()
        if self._spawner is not None:
            self._spawner.close()
        if self._poller is not None and not self._processes:
            self._poller.close()
            self._poller = None


def _begin_feeding(process: LocalProcess, stdin: AsyncIterator[bytes]) -> asyncio.Task[None]:
    """Feed the program; input that breaks ends it, since it would wait for the rest for ever."""

    def fed(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            process.stop(error)

    feeding = asyncio.create_task(process.feed(stdin))
    feeding.add_done_callback(fed)
    return feeding
