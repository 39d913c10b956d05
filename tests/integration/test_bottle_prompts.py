"""A person at the questions of `bottle start`: no answer, the end of answers, Ctrl-C. Nothing starts then."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cli_terminal import Person, on_terminal
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import REPOSITORY, require_bottles

CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"


@pytest.fixture
def root(tmp_path: Path) -> HomeRoot:
    require_bottles()
    root = HomeRoot(tmp_path / "root")
    root.bottle("asking", "env:\n  PIN: ?the pin\n  PLACE: ${PROMPTS_PLACE}\n")
    root.agent("worker", "bottle: asking\n")
    return root


@contextmanager
def starting(root: HomeRoot, *options: str, place: str | None = "somewhere-else") -> Iterator[Person]:
    env = {**os.environ, "BOT_BOTTLE_ROOT": str(root.path), "PYTHONPATH": str(REPOSITORY)}
    env |= {"XDG_STATE_HOME": str(root.path / "crashes")}
    env |= {} if place is None else {"PROMPTS_PLACE": place}
    argv = [
        sys.executable,
        "-m",
        "bottle",
        "start",
        "worker",
        *options,
        "--no-tty",
        "--",
        "/bin/sh",
        "-c",
        "echo it $((1+1)) ran",
    ]
    with on_terminal(argv, cwd=root.path, env=env, columns=200) as person:
        yield person


def rest(person: Person) -> str:
    return person.screen.decode("utf-8", "replace")


def assert_nothing_is_left(root: HomeRoot, person: Person) -> None:
    assert "it 2 ran" not in rest(person)
    assert "internal error" not in rest(person)
    assert not (root.path / "state").exists()
    assert not (root.path / "crashes").exists()


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [(CTRL_C, 130, "interrupted"), (CTRL_D, 1, "not started"), (ENTER, 1, "not started"), ("no\r", 1, "not started")],
)
def test_only_a_yes_starts_a_bottle(root: HomeRoot, key: str, code: int, said: str) -> None:
    with starting(root) as person:
        person.sees(r"start it\? \[y/N\] ")
        person.types(key)
        assert person.leaves() == code
        assert rest(person).endswith(f"\r\nbottle: {said}\r\n"), rest(person)
        assert_nothing_is_left(root, person)


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [(CTRL_C, 130, "interrupted"), (CTRL_D, 2, "nothing was typed for"), (ENTER, 2, "nothing was typed for")],
)
def test_a_value_that_isn_t_typed_starts_nothing(root: HomeRoot, key: str, code: int, said: str) -> None:
    with starting(root, "-y") as person:
        person.sees("the pin: ")
        person.types(key)
        assert person.leaves() == code
        assert f"\r\nbottle: {said}" in rest(person), rest(person)
        assert_nothing_is_left(root, person)


def test_nobody_types_a_secret_for_a_launch_that_lacks_a_variable(root: HomeRoot) -> None:
    with starting(root, "-y", place=None) as person:
        assert person.leaves() == 2
        assert "env PLACE wants $PROMPTS_PLACE, which isn't set" in rest(person)
        assert "the pin" not in rest(person)
        assert_nothing_is_left(root, person)


def test_a_value_that_the_gates_can_t_recognise_is_warned_about_and_shown_nowhere(root: HomeRoot) -> None:
    with starting(root, "-y") as person:
        person.sees("the pin: ")
        person.types("q7w\r")
        assert person.leaves() == 0
        assert "warning: env PIN holds fewer than 8 characters" in rest(person)
        assert "env PLACE holds" not in rest(person)
        assert "it 2 ran" in rest(person)
        assert "q7w" not in rest(person)
