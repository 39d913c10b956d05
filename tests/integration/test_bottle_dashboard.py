"""The dashboard on a screen of the test's own, over a bottle whose agent asks for things."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.widgets import DataTable, Input, Static

from bottle.operator.board import read_board
from bottle.operator.dashboard import Dashboard, Question
from bottle.state import State
from tests.parts.bottle_running import Bottles
from tests.parts.supervised import Supervised
from tests.parts.supervised_bottles import OPEN, PROPOSE, supervised_bottles
from tests.parts.waiting import eventually

WIDTH = (160, 50)


@pytest.fixture(scope="module")
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    with supervised_bottles(request, tmp_path_factory, ("open.test",), {"dev": OPEN}, answer_s=20) as made:
        yield made


@asynccontextmanager
async def dashboard(bottle: Supervised) -> AsyncIterator[tuple[Dashboard, Any]]:
    """The dashboard, on a screen of the test's own."""
    root = bottle.bottles.root.path
    app = Dashboard(State(root), root)
    async with app.run_test(size=WIDTH) as pilot:
        yield app, pilot


def rows(app: Dashboard, name: str) -> list[list[str]]:
    """What a table of the dashboard holds."""
    table: DataTable[Any] = app.screen_stack[0].query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(at)] for at in range(table.row_count)]


async def drawn(look: Callable[[], Any], what: str) -> Any:
    """Wait for something to stand on the screen."""
    return await eventually(look, within_s=30, what=what)


@pytest.mark.anyio
async def test_the_dashboard_shows_bottles_proposals_and_refusals_and_approves(bottle: Supervised) -> None:
    bottle.proposed(PROPOSE)
    bottle.inside("found['said'] = status('https://open.test/refused-here')")
    async with dashboard(bottle) as (app, pilot):
        await drawn(lambda: rows(app, "proposals"), "the proposal")
        assert [bottle.identity, "running"] in [row[:2] for row in rows(app, "bottles")]
        assert any("open.test/refused-here" in row[3] for row in rows(app, "refusals"))
        await drawn(lambda: "+ egress open.test: path /board" in str(app.query_one("#detail", Static).render()), "it")
        # One key alone decides nothing.
        await pilot.press("a")
        await drawn(lambda: isinstance(app.screen, Question), "the question")
        app.screen.query_one(Input).value = "y"
        await pilot.press("enter")
        await drawn(lambda: not isinstance(app.screen, Question), "the board again")
        assert rows(app, "proposals")
        # The board goes on being drawn below a question.
        await pilot.press("a")
        await drawn(lambda: isinstance(app.screen, Question), "the question")
        app.show(read_board(State(bottle.bottles.root.path), bottle.bottles.root.path))
        await pilot.press("escape")
        await drawn(lambda: not isinstance(app.screen, Question), "the board again")
        await pilot.press("a")
        await drawn(lambda: isinstance(app.screen, Question), "the question")
        app.screen.query_one(Input).value = "yes"
        await pilot.press("enter")
        await drawn(lambda: not rows(app, "proposals"), "nothing waits")
    assert "/board" in json.dumps(bottle.table())


@pytest.mark.anyio
async def test_the_dashboard_rejects_with_a_reason(bottle: Supervised) -> None:
    bottle.proposed(PROPOSE.replace("/board", "/no"))
    async with dashboard(bottle) as (app, pilot):
        await drawn(lambda: rows(app, "proposals"), "the proposal")
        await pilot.press("r")
        await drawn(lambda: isinstance(app.screen, Question), "the question")
        app.screen.query_one(Input).value = "not that"
        await pilot.press("enter")
        await drawn(lambda: not rows(app, "proposals"), "nothing waits")
    assert bottle.kept()[-1]["reason"] == "not that"


@pytest.mark.anyio
async def test_an_unreadable_manifest_is_a_status_line_and_no_crash(bottle: Supervised) -> None:
    broken = bottle.bottles.root.agent("broken", "bottle: nowhere\nmore: x\n")
    torn = bottle.queue / "proposals" / "999.json"
    torn.write_text("{")
    try:
        async with dashboard(bottle) as (app, _):
            said = await drawn(lambda: str(app.query_one("#status", Static).render()), "a status line")
            assert "broken.md" in said
            assert "unknown key 'more'" in said
            assert "999.json can't be read" in said
            assert app.is_running
        assert app.crashed is None
    finally:
        broken.unlink()
        torn.unlink()


@pytest.mark.anyio
async def test_a_crash_leaves_a_traceback_and_says_where(bottle: Supervised) -> None:
    class Broken(Dashboard):
        def show(self, board: Any) -> None:
            raise RuntimeError("a bug of its own")

    root = bottle.bottles.root.path
    app = Broken(State(root), root)
    with pytest.raises(Exception, match="bug of its own"):
        async with app.run_test(size=WIDTH):
            await drawn(lambda: app.crashed, "the crash")
    assert app.crashed is not None
    assert "a bug of its own" in app.crashed.read_text()
    assert app.crashed.stat().st_mode & 0o777 == 0o600


def test_no_text_of_an_agents_steers_the_board(bottle: Supervised) -> None:
    """LG1: what it writes into a path or a reason stands there as it is, as text."""
    waiting = bottle.proposed(PROPOSE.replace("/board", "/[red]x[/red]"))
    assert waiting["change"]["path_allowlist"] == ["/[red]x[/red]"]
    board = read_board(State(bottle.bottles.root.path), bottle.bottles.root.path)
    assert [each.token for each in board.waiting] == [waiting["id"]]
    shown = bottle.bottles.command("proposals").stdout
    assert "/[red]x[/red]" in shown
    assert shown.replace("\n", "").isprintable()
