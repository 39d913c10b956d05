"""What is kept of a bottle: read, or told as such; held by one, and removed by nobody who can't tell what it is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from bottle import state as states
from bottle.cli import main
from bottle.errors import BottleRunning, BottleUnreadable, NoSuchBottle
from bottle.state import LOCK, METADATA, Metadata, State
from tests.parts.waiting import eventually_now

IDENTITY = "worker-00000001"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(tmp_path))
    found = State(tmp_path)
    found.make(Metadata(IDENTITY, "worker", "/", False, 1.0, "bwrap", arguments=("a",), phase="stopped"))
    (found.directory(IDENTITY) / "home").mkdir()
    return found


def test_what_was_written_is_what_is_read(state: State) -> None:
    found = state.read(IDENTITY)
    assert (found.agent, found.arguments, found.phase) == ("worker", ("a",), "stopped")


def test_what_a_later_version_writes_beside_it_is_left_alone(state: State) -> None:
    path = state.directory(IDENTITY) / METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_tomorrow": {"x": 1}}))
    assert state.read(IDENTITY).agent == "worker"


UNREADABLE = [b"", b"[]", b'{"identity": "worker-00000001"}', b"\xff\xfe", b'{"started_at": "then"}', b"[" * 5000]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_bottle_that_can_t_be_read_is_removed_when_all_is_asked_for_and_not_before(
    state: State, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (state.directory(IDENTITY) / METADATA).write_bytes(data)
    with pytest.raises(BottleUnreadable):
        state.read(IDENTITY)
    assert main(["list", "--all"]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert main(["cleanup"]) == 1
    assert "--all removes it" in capsys.readouterr().err
    assert (state.directory(IDENTITY) / "home").exists()
    assert main(["cleanup", "--all"]) == 0
    assert state.identities() == []


def test_nobody_else_may_change_what_bottles_are_found_by(tmp_path: Path) -> None:
    loose = os.umask(0)
    try:
        made = State(tmp_path / "new").place(IDENTITY)
        (tmp_path / "old" / "state").mkdir(parents=True)
        State(tmp_path / "old").place(IDENTITY)
    finally:
        os.umask(loose)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (made.parent, made)] == [0o700, 0o700]
    assert stat.S_IMODE((tmp_path / "old" / "state").stat().st_mode) == 0o755


def test_a_launch_that_was_killed_before_it_was_written_down_is_removed(state: State) -> None:
    (state.directory(IDENTITY) / METADATA).unlink()
    assert main(["cleanup"]) == 0
    assert state.identities() == []


def test_a_look_at_a_bottle_keeps_nobody_from_taking_it(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "LOCK_S", 60.0)
    look = os.open(state.directory(IDENTITY) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(look, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [look]).start()
    with state.held(IDENTITY):
        assert state.alive(IDENTITY)


def test_a_bottle_is_held_by_one(state: State) -> None:
    with state.held(IDENTITY), pytest.raises(BottleRunning), state.held(IDENTITY):
        pass


def opened(path: Path) -> int:
    """How often this process has a file open."""
    return sum(Path("/proc/self/fd", each).resolve() == path for each in os.listdir("/proc/self/fd"))


def test_a_bottle_that_goes_as_it_is_taken_is_none(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "LOCK_S", 60.0)
    lock = state.directory(IDENTITY) / LOCK
    came: list[BaseException] = []

    def take() -> None:
        try:
            with state.held(IDENTITY):
                pass
        except NoSuchBottle as error:
            came.append(error)

    with state.held(IDENTITY):
        taking = threading.Thread(target=take)
        taking.start()
        eventually_now(lambda: opened(lock) == 2, within_s=60, what="the other one asks for it")
        shutil.rmtree(state.directory(IDENTITY))
    taking.join(60)
    assert "was removed just now" in str(came[0])
    with pytest.raises(NoSuchBottle), state.held(IDENTITY):
        pass
