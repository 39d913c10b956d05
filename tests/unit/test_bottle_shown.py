"""What an agent's words, names and files look like to a person: nothing hides, steers, or breaks a line."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest

from bottle.commands.workspace import notes, show_patch
from bottle.operator.candidate import read_candidate
from bottle.operator.listing import GOES_ON, lines
from bottle.operator.queue import Proposal
from bottle.operator.shown import show
from bottle.preflight import shown
from bottle.workspace.changes import compare
from bottle.workspace.review import Review
from bottle.workspace.tree import Entry, Tree
from tests.parts.attendants import POLICY

BLANK = "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\ufe0f\uffa0\U000e0100\U000e01ef"
"""What is neither a control nor a format character, and yet draws nothing (Default_Ignorable_Code_Point; U+2800)."""


class FakeTerminal(io.StringIO):
    """Where a person looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("character", BLANK, ids=[f"{ord(each):x}" for each in BLANK])
def test_a_character_that_draws_nothing_shows_itself(character: str) -> None:
    assert shown(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"


def test_what_people_write_is_left_as_it_is() -> None:
    for text in ("plain ascii", "na\u00efve caf\u00e9", "\u4f60\u597d", "\u0440\u0443\u0441", "e\u0301", "\U0001f600"):
        assert shown(text) == text


@pytest.mark.parametrize("width", [100, 80, 41])
def test_sv7_a_reason_of_wide_characters_goes_on_as_no_line_of_ours(width: int) -> None:
    """A terminal gives such a character two columns: lines of so many characters would be broken by the terminal."""
    why = "\u4f60" * 200 + "  + egress harmless.test: path /x" + "\u3164" * 90
    proposal = Proposal(1, read_candidate("route", {"host": "sv7.example", "path_allowlist": ["/y"]}), why, 0.0)
    told = lines(show("worker-1", proposal, POLICY), 0.0, width)
    assert max(sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line) for line in told) <= width
    assert [line for line in told if "harmless" in line and not line.startswith(GOES_ON)] == []
    assert why.replace("\u3164", "\\u3164") in "".join(told).replace(GOES_ON, "")


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_a_line_of_a_file_is_one_line_of_what_a_person_reads(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Languages end a line, and a comment, at some of these: what comes behind must not pass for what was there."""
    screen = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", screen)
    show_patch(f"+# harmless{end} evil()\n context\n".encode())
    escaped = end.encode("unicode_escape").decode()
    assert screen.getvalue() == f"+# harmless{escaped} evil()\n context\n"


@pytest.mark.parametrize("what", ["\x1b]52;c;ZXZpbA==\x07", "\nbottle: 0 changes", "\u202e", "\x9b31m"])
def test_why_a_path_is_held_back_steers_no_terminal(what: str) -> None:
    """A reason names where a link leads, and that is the agent's own text."""
    left = Tree({"link": Entry("link", "link", 0o777, 1, target=f".git/{what}")})
    told = list(notes(Review(compare(Tree({}), left, lambda path, directory: False))))
    assert len(told) == 1
    assert "a link to .git/" in told[0]
    assert told[0].isprintable()
