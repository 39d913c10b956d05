"""What the agent tells its service manager never stands in its own way."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from agent.notify import notify


def test_without_a_descriptor_nothing_is_told_and_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            notify("WATCHDOG=1")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
