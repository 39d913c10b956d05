"""`GET /v1/tty...`: watching a terminal from its beginning on, fetching its recording, and which ones there are.

Who watches reads the recording, not the terminal: a slow one can't hold anything up, and one who joins late sees the
screen as it came to be. Nothing of theirs reaches the program.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from agent import http_server as web
from agent.answer import Answer
from agent.asker import Asker
from agent.desk import Desk
from agent.refusal import reading
from agent.runs import require_admitted, why_admitted, why_asked
from agent.tty.live import LiveTape
from agent.tty.recordings import shown
from opsexec.errors import HostUnsuitable, OpsError, UsageError
from opsexec.recording import parse_event, parse_header
from opsexec.recording_anchors import anchors_in
from opsexec.wire import MAX_BULK_FRAME, OUT, SCREEN, SIZE, Result, frame, require_run_id

BLOCK = 256 << 10
MAX_LINE = 16 << 20
LAG_BYTES = 4 << 20
"""How far one who watches may fall behind a terminal that goes on, in bytes, once they had caught up."""

RECENT_BYTES = 64 << 10
"""So much of the end is shown to whom more was left out: what stands on the screen now, and its last words."""

_CLEAN = b"\x18\x1b[0m\x1b[2J\x1b[H"
"""Ends whatever was under way and clears the screen: what was left out may have drawn anything."""


async def list_terminals(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Answer with the recordings the caller may read, the newest first; those of open terminals say so."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        desk.allow(asker, {"type": "tty.list"}, "own terminals, and those that run.read admits")
        found: list[dict[str, Any]] = [
            shown(each, each.run in desk.terminals.live)
            for each in await asyncio.to_thread(desk.terminals.recordings.all)
            if why_admitted(asker, each, "run.read")
        ]
        return await answer.result(Result(run="tty", exit_code=0, value={"terminals": found}))
    except OpsError as error:
        return await answer.error(error)


async def watch_terminal(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Show a terminal from its beginning, and while it goes on; one that has ended all at once."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        with reading(desk, asker, request):
            run = require_run_id(request.path.removeprefix("/v1/tty/"))
        with _admitted(desk, asker, run):
            answer.begin()
            live = desk.terminals.live.get(run)
            fd = os.open(desk.terminals.recordings.path(run), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                status = await _show(answer, fd, live)
            finally:
                os.close(fd)
        return await answer.result(Result(run=run, exit_code=0, value={"status": status}))
    except OpsError as error:
        return await answer.error(error)
    except FileNotFoundError:
        return await answer.error(UsageError("the recording was removed: it was one of the oldest"))
    finally:
        answer.close()


async def send_recording(desk: Desk, request: web.BaseRequest, asker: Asker) -> web.StreamResponse:
    """Send a recording as it is on the disk, then the links of it that are in the audit."""
    answer = Answer(request, desk.config.limits.stall_timeout_s)
    try:
        with reading(desk, asker, request):
            run = require_run_id(request.path.removeprefix("/v1/tty/").removesuffix("/recording"))
        with _admitted(desk, asker, run):
            answer.begin()
            live = desk.terminals.live.get(run)
            fd = os.open(desk.terminals.recordings.path(run), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                size, at = os.fstat(fd).st_size, 0
                while at < size and (data := os.pread(fd, min(BLOCK, size - at), at)):
                    await answer.write_frames(frame(OUT, data))
                    at += len(data)
            finally:
                os.close(fd)
            log = Path(desk.config.agent.state_dir) / "audit.jsonl"
            links = await asyncio.to_thread(anchors_in, log, run)
            noted = [msgspec.structs.asdict(each) for each in links if live is None or each.bytes <= size]
        value = {"live": live is not None, "links": noted}
        return await answer.result(Result(run=run, exit_code=0, value=value))
    except OpsError as error:
        return await answer.error(error)
    except FileNotFoundError:
        return await answer.error(UsageError("the recording was removed: it was one of the oldest"))
    finally:
        answer.close()


@contextmanager
def _admitted(desk: Desk, asker: Asker, run: str) -> Iterator[None]:
    """Let only those on who may read the run, for as long as they may; raises what refuses or ends them, audited.

    The recording says whose it is. A run of that id that goes on now may be another's: ids are forgotten at a restart.
    """
    found = desk.terminals.recordings.find(run)
    require_admitted(desk, asker, found, run, "run.read")
    assert found is not None

    def admits(now: Asker) -> str | None:
        return why_admitted(now, found, "run.read") or why_asked(desk, now, found)

    with desk.following(asker, run, "run.read", admits):
        yield


async def _show(answer: Answer, fd: int, live: LiveTape | None) -> int | None:
    """Send a recording's screen until its end; returns the exit status that it ends with, None when it has none."""
    at, caught_up, status = 0, False, None
    screen = _Screen(answer)
    while True:
        over = live is None or live.over.is_set()
        data = _whole_lines(fd, at)
        if not data:
            await screen.flush()
            caught_up = True
            if over or live is None:
                return status
            await live.more(at)
            continue
        if live is not None and not over and caught_up and live.tape.size - at > LAG_BYTES:
            now = _recent(fd, live.tape.size)
            left_out, at = now - at, now
            await screen.flush()
            answer.note(f"{left_out} bytes of the recording were left out here: this viewer is too slow")
            await answer.write("stdout", _CLEAN)
            continue
        for line in data.splitlines(keepends=True):
            if at == 0:
                header = parse_header(line)
                if header is None:
                    raise HostUnsuitable("the recording is damaged at its beginning")
                await screen.resize(header.columns, header.rows)
            elif not line.startswith(b"#"):
                event = parse_event(line)
                if event is None:
                    raise HostUnsuitable(f"the recording is damaged at byte {at}")
                if event.code == "o":
                    await screen.draw(event.text)
                elif event.code == "r":
                    columns, _, rows = event.text.partition("x")
                    await screen.resize(int(columns), int(rows))
                elif event.code == "x":
                    status = int(event.text)
            at += len(line)


def _recent(fd: int, size: int) -> int:
    """Return where a line begins, not long before the end; the end itself where lines are that long."""
    begin = max(0, size - RECENT_BYTES)
    cut = os.pread(fd, size - begin, begin).find(b"\n") + 1
    return begin + cut if cut else size


def _whole_lines(fd: int, at: int) -> bytes:
    """Return whole lines from here on, none where there are none yet; a line that a crash has torn is none."""
    size = BLOCK
    while True:
        data = os.pread(fd, size, at)
        whole = data.rfind(b"\n") + 1
        if whole or len(data) < size:
            return data[:whole]
        if size >= MAX_LINE:
            raise HostUnsuitable("the recording is damaged: a line without end")
        size *= 4


class _Screen:
    """Gathers what is drawn into frames."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._drawn: list[bytes] = []
        self._size = 0

    async def draw(self, text: str) -> None:
        data = text.encode()
        self._drawn.append(data)
        self._size += len(data)
        if self._size >= BLOCK:
            await self.flush()

    async def resize(self, columns: int, rows: int) -> None:
        await self.flush()
        if self._answer.lines:
            return
        await self._answer.write_frames(frame(SCREEN, SIZE.pack(columns, rows)))

    async def flush(self) -> None:
        data, self._drawn, self._size = b"".join(self._drawn), [], 0
        for at in range(0, len(data), MAX_BULK_FRAME):
            await self._answer.write("stdout", data[at : at + MAX_BULK_FRAME])
