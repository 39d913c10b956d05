"""`bottle dashboard`: the board on a terminal, and the two keys that decide."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Header, Input, Static

from bottle.operator.board import Board, read_board
from bottle.operator.deciding import approve, reject
from bottle.operator.listing import lines
from bottle.operator.shown import Shown
from bottle.preflight import shown as plain
from bottle.state import State
from opsexec.errors import OpsError

REFRESH_S = 1.0
YES = "yes"
FRAME = 3
"""Lines of a question that aren't its text: two of the border, and the one for the word."""


class Question(ModalScreen[str | None]):
    """Shows one proposal whole, and takes one word: nothing is decided by a single key.

    What doesn't fit is scrolled through. `to_its_end`: no word is taken before that was done.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "back"),
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]
    CSS = """
    Question { align: center middle; }
    Question > Vertical { width: 90%; height: auto; border: thick $primary; padding: 0 1; }
    Question VerticalScroll { height: auto; }
    Question Static { height: auto; }
    Question Input { height: 1; border: none; }
    """

    def __init__(self, text: str, asked: str, *, to_its_end: bool) -> None:
        super().__init__()
        self._text = VerticalScroll(Static(Text(text)), can_focus=False)
        self._frame = Vertical(self._text, Input(placeholder=asked))
        self._unseen = to_its_end
        self._room = 1

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield self._frame

    def on_mount(self) -> None:
        """Look along with the person."""
        self.watch(self._text, "scroll_y", self._look, init=False)

    def on_resize(self) -> None:
        """Leave the text what the frame and the line for the word don't need."""
        self._room = max(self.size.height - FRAME, 1)
        self._text.styles.max_height = self._room
        self.call_after_refresh(self._look)

    def _look(self) -> None:
        """Say whether there is more below, and note that the end was seen."""
        if not 0 < self._text.size.height <= self._room:
            return  # it isn't drawn as it will be
        more = self._text.max_scroll_y - self._text.scroll_y >= 1
        self._unseen = self._unseen and more
        self._frame.border_subtitle = "more below: page down" if more else ""

    def action_move(self, lines: int) -> None:
        """Scroll by lines."""
        self._text.scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        """Scroll by as much as is seen, but for a line."""
        self.action_move(pages * max(self._text.size.height - 1, 1))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the word."""
        self._look()
        if self._unseen:
            self.notify("page down to its end first", severity="warning")
            return
        self.dismiss(event.value)


class Dashboard(App[None]):
    """The board. `crashed`: where a traceback was left, if there was reason to."""

    TITLE = "bottles"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "approve"),
        Binding("r", "reject", "reject"),
        Binding("q", "quit", "leave"),
    ]
    CSS = """
    DataTable { height: 1fr; border-top: solid $primary; }
    #bottles { height: 25%; }
    #detail { height: auto; max-height: 40%; padding: 0 1; }
    #status { height: auto; max-height: 6; color: $warning; padding: 0 1; }
    """

    def __init__(self, state: State, root: Path) -> None:
        super().__init__()
        self._state, self._root = state, root
        self._board = Board()
        # Held here: what is on top of the screen may be a question.
        self._tables: dict[str, DataTable[Text]] = {
            name: DataTable(id=name, cursor_type="row") for name in ("bottles", "proposals", "refusals")
        }
        self._detail, self._status = Static(id="detail"), Static(id="status")
        self.crashed: Path | None = None

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Header()
        yield self._tables["bottles"]
        yield self._tables["proposals"]
        yield self._detail
        yield self._tables["refusals"]
        yield self._status
        yield Footer()

    def on_mount(self) -> None:
        """Name the columns, and begin to look."""
        self._tables["bottles"].add_columns("bottle", "state", "agent", "started")
        self._tables["proposals"].add_columns("P", "bottle", "proposes", "about", "look twice")
        self._tables["refusals"].add_columns("at", "bottle", "by", "refused", "because")
        self._tables["proposals"].focus()
        self.look()
        self.set_interval(REFRESH_S, self.look)

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Read the board, away from the screen."""
        self.call_from_thread(self.show, read_board(self._state, self._root))

    def show(self, board: Board) -> None:
        """Draw a board. The cursor stays with the proposal it was on, wherever that is now."""
        if not all(table.is_attached for table in self._tables.values()):
            return  # the person is leaving
        before, self._board = self.chosen(), board
        _fill(self._tables["bottles"], [[b.identity, b.how, b.agent, b.started] for b in board.bottles])
        rows = [
            [each.token, each.bottle, each.proposal.candidate.kind, each.candidate.subject, str(len(each.risks) or "")]
            for each in board.waiting
        ]
        _fill(self._tables["proposals"], rows)
        tokens = [each.token for each in board.waiting]
        if before is not None and before.token in tokens:
            self._tables["proposals"].move_cursor(row=tokens.index(before.token))
        _fill(self._tables["refusals"], [[r.ts, r.bottle, r.by, r.what, r.why] for r in board.refusals])
        self._status.update(Text("\n".join(board.status)))
        self._draw_detail()

    def on_data_table_row_highlighted(self) -> None:
        """Show what the cursor is on."""
        self._draw_detail()

    def _draw_detail(self) -> None:
        chosen = self.chosen()
        text = "nothing waits" if chosen is None else self._said(chosen)
        self._detail.update(Text(text))

    def _said(self, shown: Shown) -> str:
        return "\n".join(lines(shown, time.time(), self.size.width * 9 // 10 - 8))

    def chosen(self) -> Shown | None:
        """Return the proposal under the cursor, as it was drawn."""
        row = self._tables["proposals"].cursor_row
        return self._board.waiting[row] if 0 <= row < len(self._board.waiting) else None

    def action_approve(self) -> None:
        """Ask about the proposal under the cursor. What is approved is what the question shows."""
        chosen = self.chosen()
        if chosen is None:
            return
        text = self._said(chosen)
        word = chosen.candidate.subject if chosen.risks else YES
        asked = f"{word} approves it" + (": there are reasons to look twice" if chosen.risks else "")

        def take(answer: str | None) -> None:
            if answer == word:
                self.decide(chosen, None)
            elif answer is not None:
                self.notify("nothing is approved", severity="warning")

        self.push_screen(Question(text, asked, to_its_end=True), take)

    def action_reject(self) -> None:
        """Ask for the reason, and reject."""
        chosen = self.chosen()
        if chosen is None:
            return

        def take(answer: str | None) -> None:
            if answer is not None:
                self.decide(chosen, answer)

        asked = "the reason, which the agent is told; enter rejects it"
        self.push_screen(Question(self._said(chosen), asked, to_its_end=False), take)

    @work(thread=True)
    def decide(self, shown: Shown, rejected: str | None) -> None:
        """Hand the decision over, and say what came of it."""
        try:
            if rejected is None:
                said = approve(self._state, shown, accept_risks=True)
            else:
                said = reject(self._state, shown, rejected)
        except OpsError as error:
            self.call_from_thread(self.notify, plain(str(error)), severity="error", markup=False)
        else:
            self.call_from_thread(self.notify, plain(said), markup=False)
        self.call_from_thread(self.show, read_board(self._state, self._root))

    def _handle_exception(self, error: Exception) -> None:
        """Textual's own place for what nobody caught: keep the traceback, and say where on the way out."""
        self.crashed = keep_traceback(error, self._root)
        super()._handle_exception(error)


def _fill(table: DataTable[Text], rows: list[list[str]]) -> None:
    at = table.cursor_row
    table.clear()
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if rows:
        table.move_cursor(row=min(max(at, 0), len(rows) - 1))


def keep_traceback(error: Exception, root: Path) -> Path:
    """Write a traceback to a new file of its owner's alone, and return where."""
    directory = root / "crashes"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"dashboard-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(fd, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    return path


def run(state: State, root: Path) -> int:
    """Show the dashboard until the person leaves; 1 after a crash, which says where its traceback is."""
    app = Dashboard(state, root)
    try:
        app.run()
    except Exception as error:  # noqa: BLE001 -- whatever it was, a person is told where to read it
        app.crashed = keep_traceback(error, root)
    if app.crashed is None:
        return 0
    print(f"bottle: the dashboard crashed; the traceback is in {app.crashed}", file=sys.stderr)
    print("  hint: bottles go on; `bottle proposals` and `bottle list` say the same", file=sys.stderr)
    return 1
