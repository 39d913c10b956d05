"""A host that can't be reached costs a run one login, whatever the runbook would do at its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from opsexec import Exec, Inventory, Runbook
from opsexec.inventory import InventoryHost
from opsexec.runbook import Report, RunbookStep

pytestmark = pytest.mark.anyio
STEP = Exec(["true"])


async def run_against_nobody(place: Path, steps: list[RunbookStep]) -> tuple[Report, int]:
    """The report of a host that hangs up on everybody, and how often it was called."""
    calls = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        host = InventoryHost(name="gone", url=f"ssh://root@127.0.0.1:{port}", config_files=())
        always = [RunbookStep(STEP, name="clean up"), RunbookStep(STEP, name="and tell")]
        book = Runbook(name="t", hosts="all", steps=steps, always=always)
        return await book.run(Inventory([host])), calls


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def test_a_host_that_was_never_reached_is_not_called_again_for_its_always_steps(tmp_path: Path) -> None:
    report, calls = await run_against_nobody(tmp_path, [RunbookStep(STEP, name="work")])
    assert [(step.name, step.status) for step in report.hosts["gone"].steps] == [("work", "unreachable")]
    assert calls == 1
    assert report.hosts["gone"].status == "unreachable"
