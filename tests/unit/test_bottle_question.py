"""The dashboard's question on small screens: all of a proposal can be read, and is, before a word approves it."""

from __future__ import annotations

import pytest
from textual.app import App
from textual.widgets import Input, Static

from bottle.operator.dashboard import Question
from tests.parts.waiting import eventually

SMALL = (40, 10)
LONG = "\n".join(["route open.test", *(f"  the agent says: {at}" for at in range(30)), "  ! it looks like another"])


class Asking(App[None]):
    """A screen with one question; `answers`: what was taken."""

    def __init__(self, text: str, *, to_its_end: bool) -> None:
        super().__init__()
        self.question = Question(text, "yes approves it", to_its_end=to_its_end)
        self.answers: list[str | None] = []

    def on_mount(self) -> None:
        """Ask."""
        self.push_screen(self.question, self.answers.append)


async def asked(app: Asking) -> None:
    await eventually(lambda: app.screen is app.question and app.question.query(Input), within_s=10, what="the question")


@pytest.mark.anyio
async def test_no_word_approves_what_was_not_read_to_its_end() -> None:
    app = Asking(LONG, to_its_end=True)
    async with app.run_test(size=SMALL) as pilot:
        await asked(app)
        await pilot.pause()
        line, text = app.question.query_one(Input), app.question.query_one(Static)
        assert line.region.bottom < SMALL[1]
        assert line.region.height == 1
        await pilot.press("y", "e", "s", "enter")
        assert app.answers == []
        seen = app.question.query_one("VerticalScroll").content_region.height
        for _ in range(40):
            await pilot.press("pagedown")
            await pilot.pause()
            window = app.question.query_one("VerticalScroll").content_region
            top = window.y - text.region.y
            assert top <= seen, "no line is passed over"
            seen = max(seen, top + window.height)
        assert seen >= LONG.count("\n") + 1
        await pilot.press("enter")
        await eventually(lambda: app.answers, within_s=10, what="the answer")
    assert app.answers == ["yes"]


@pytest.mark.anyio
@pytest.mark.parametrize(("text", "to_its_end"), [(LONG, False), ("route open.test\n  + egress open.test", True)])
async def test_what_is_seen_whole_or_rejected_takes_a_word_at_once(text: str, to_its_end: bool) -> None:
    app = Asking(text, to_its_end=to_its_end)
    async with app.run_test(size=SMALL) as pilot:
        await asked(app)
        await pilot.pause()
        await pilot.press("n", "o", "enter")
        await eventually(lambda: app.answers, within_s=10, what="the answer")
    assert app.answers == ["no"]
