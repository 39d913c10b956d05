"""`TerminalHost`: this machine, where a terminal opens only with a recording, and with consent where that is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent.marked_host import MarkedHost
from agent.tty.consent import Question
from agent.tty.live import LiveTape
from agent.tty.terminal import RecordedTerminal
from opsexec.errors import ConsentDenied, RecordingFailed
from opsexec.recording_chain import Anchor

if TYPE_CHECKING:
    from agent.asker import Asker
    from agent.desk import ActiveRun, Desk
    from opsexec.executor import TtySession
    from opsexec.hosts.port import ProcessSpec


class TerminalHost(MarkedHost):
    """As MarkedHost, for one terminal. `asks`: a person on the host must agree; `say` tells the caller what goes on."""

    def __init__(self, desk: Desk, active: ActiveRun, asker: Asker, asks: bool, say: Callable[[str], None]) -> None:
        super().__init__(desk.host, active.mark)
        self._desk = desk
        self._active = active
        self._asker = asker
        self._asks = asks
        self._say = say

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> TtySession:
        """Make the recording, ask, and start the program: in this order. Raises RecordingFailed or ConsentDenied."""
        desk, run = self._desk, self._active.run
        terminals, limits = desk.terminals, desk.config.recordings
        await self._make_room(limits.keep, limits.keep_bytes)
        tape = terminals.recordings.create(
            run,
            spec,
            principal=self._asker.principal,
            overseers=self._active.overseers,
            title=f"{self._asker.principal} on {desk.name}",
            term=term,
            size=(columns, rows),
            max_bytes=limits.max_bytes,
        )
        live = terminals.live[run] = LiveTape(tape)
        try:
            self._note(await tape.link())
            if self._asks:
                await self._consent()
            session = await super().open_tty(spec, term, columns, rows)
        except BaseException:  # a cancellation as well: nothing may stand as a live terminal
            tape.close()
            live.end()
            del terminals.live[run]
            terminals.recordings.remove(run)  # nothing was shown; why it came to nothing is in the audit
            raise
        return RecordedTerminal(session, live, self._note, limits)

    async def _make_room(self, keep: int, keep_bytes: int) -> None:
        """Remove the oldest recordings over the limits; each removal is in the audit first."""
        desk = self._desk
        try:
            open_now = frozenset(desk.terminals.live)
            surplus = await asyncio.to_thread(desk.terminals.recordings.surplus, keep, keep_bytes, open_now)
            for run in surplus:
                desk.allow_self({"type": "tty.recording.remove", "run": run}, "over the limits of [recordings]")
                desk.terminals.recordings.remove(run)
        except OSError as error:
            text = f"the agent's recordings can't be looked at: {error.strerror}"
            raise RecordingFailed(text, hint="no recording, no terminal: look at the agent's state_dir") from error

    async def _consent(self) -> None:
        desk, active = self._desk, self._active
        within_s = desk.config.consent.timeout_s
        step: dict[str, Any] = {"type": "tty.consent", "run": active.run}
        question = Question(active.run, self._asker, active.step, active.overseers, within_s)
        self._say(f"a person on {desk.name} is asked whether this terminal may open ({within_s:g} s)")
        try:
            who = await desk.terminals.consents.ask(question, within_s)
        except ConsentDenied as error:
            desk.refuse(self._asker.listener, self._asker.principal, step, error.message)
            raise
        desk.allow(self._asker, step, f"{who} said yes", active.run)
        self._say(f"{who} said yes, and may watch and end this terminal")

    def _note(self, anchor: Anchor) -> None:
        """Put a link of the recording in the audit; raises AuditUnavailable."""
        step = {
            "type": "tty.recording",
            "bytes": anchor.bytes,
            "link": anchor.link,
            "head": anchor.head,
            "final": anchor.final,
        }
        self._desk.note(self._asker, step, self._active.run)
