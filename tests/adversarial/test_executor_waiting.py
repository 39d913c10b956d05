"""What never answers, never ends or is given up leaves no process, task or file descriptor behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from opsexec import Exec
from opsexec.errors import HostUnsuitable
from opsexec.hosts import local_session
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_hung_way_to_become_another_user_is_ended_when_it_is_given_up(local, tmp_path, monkeypatch, how):
    monkeypatch.setattr(local_session, "OPEN_S", 0.5 if how == "deadline" else 60.0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    mark = tmp_path / "pids"
    for name in ("runuser", "sudo"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntrap '' HUP PIPE TERM\nsleep 600 &\necho $$ $! > {mark}\nwait\n")
        program.chmod(0o755)
    async with local.connect() as ex:
        running = asyncio.create_task(ex.run(Exec(["id"], run_as="nobody")))
        await eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), within_s=5, what="its start")
        pids = [int(pid) for pid in mark.read_text().split()]
        if how == "cancel":
            running.cancel()
            await asyncio.wait([running])
        else:
            with pytest.raises(HostUnsuitable):
                await running
    await eventually(lambda: not any(map(_lives, pids)), within_s=3, what="its end")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
