"""Diffs of content: they say what is written, and nobody's choice of lines makes them take long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.handlers.diffs import content_diff
from opsexec.steering import STEERING

LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n"]), max_size=14)


def between(lines: list[str], others: str) -> list[str]:
    return [each for at, line in enumerate(lines) for each in (line, f"{others}{at}\n")]


def written(before: list[str], diff: str) -> list[str]:
    """What a diff makes of lines; where a hunk begins is read from its head, and each line has to be there."""
    made: list[str] = []
    at = 0
    for line in diff.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            first, _, count = line.split()[1].removeprefix("-").partition(",")
            begin = int(first) - (count != "0")
            made += before[at:begin]
            at = begin
        elif line.startswith("+"):
            made.append(line[1:])
        else:
            assert before[at] == line[1:]
            made += before[at : at + 1] if line.startswith(" ") else []
            at += 1
    return made + before[at:]


def changed(before: list[str], after: list[str]) -> str:
    return content_diff("/f", "".join(before).encode(), "".join(after).encode())


@given(LINES, LINES)
def test_a_diff_says_what_was_written(before: list[str], after: list[str]) -> None:
    assert written(before, changed(before, after)) == after


@given(LINES, LINES, st.integers(0, 14), st.integers(0, 14))
def test_a_diff_within_lines_that_stay_says_what_was_written(
    before: list[str], after: list[str], head: int, tail: int
) -> None:
    around = [f"{at}\n" for at in range(head)], [f"-{at}\n" for at in range(tail)]
    wholes = [around[0] + each + around[1] for each in (before, after)]
    diff = changed(*wholes)
    assert written(wholes[0], diff) == wholes[1]
    assert all(f"\n {at}\n" not in diff for at in range(head - 4))


@pytest.mark.parametrize("character", [chr(code) for code in STEERING] + ["\x1b", "\r"])
def test_nothing_hides_what_a_line_says(character: str) -> None:
    for diff in (content_diff(f"/f{character}", None, b""), content_diff("/f", b"", f"a{character}b\n".encode())):
        assert character not in diff
        assert f"{ord(character):02x}" in diff


def test_lines_that_each_stand_in_many_places_are_not_compared_for_long() -> None:
    often = [f"{at % 50}\n" for at in range(999)]
    assert changed(between(often, "x"), between(often, "y")) == "(content differs: 1998 -> 1998 lines)\n"


def test_what_stays_the_same_makes_no_comparison_long() -> None:
    often = [f"{at % 10}\n" for at in range(999)]
    stays = [f"stays {at}\n" for at in range(7990)]
    for wholes in ([stays + between(often, each) for each in "xy"], [between(often, each) + stays for each in "xy"]):
        shown = changed(*wholes)
        assert shown.count("\n-x") == shown.count("\n+y") == 999
