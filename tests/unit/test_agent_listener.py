"""A unix socket of an agent: one agent has it, however close together two of them begin."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import unix_listener
from agent.errors import AgentUnable
from agent.unix_listener import bind_unix


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """Its descriptor, by which another agent makes its socket there."""
    (tmp_path / "run").mkdir(mode=0o755)
    fd = os.open(tmp_path / "run", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


def test_a_socket_that_another_agent_is_about_to_listen_on_is_not_taken_for_a_dead_one(
    tmp_path: Path, directory: int
) -> None:
    path = str(tmp_path / "run" / "agent.sock")
    said: list[str] = []

    def second() -> None:
        try:
            bind_unix(path, 0o600, None).close()
        except AgentUnable as error:
            said.append(error.message)

    with socket.socket(socket.AF_UNIX) as first:
        first.bind(path)
        inode = os.stat(path).st_ino
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)  # as long as it would take to clear away what looks dead
        first.listen()
        fcntl.flock(directory, fcntl.LOCK_UN)
        other.join(30)
        assert said == [f"something listens on {path} already"]
        assert os.stat(path).st_ino == inode


def test_a_lock_that_somebody_holds_for_ever_keeps_no_agent_away(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_listener, "TURN_S", 0.1)
    path = tmp_path / "run" / "agent.sock"
    with bind_unix(str(path), 0o660, None):
        assert path.is_socket()
