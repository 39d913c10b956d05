"""What an agent holds and does when nobody asks anything of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opsexec.steps import Exec
from tests.parts.agent_calls import rpc
from tests.parts.ops_agent import OpsAgent

MAX_IDLE_BYTES = 45 << 20


@pytest.mark.anyio
async def test_an_idle_agent_is_small_and_loads_no_pydantic_and_no_http_client() -> None:
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            for _ in range(3):
                await ex.run(Exec(["true"]))
        mapped = Path(f"/proc/{agent.pid}/maps").read_text()
        resident = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert "_http_parser" in mapped  # aiohttp's own C code, so a name that is missing below says something
    assert "pydantic" not in mapped
    assert resident < MAX_IDLE_BYTES


def test_the_http_client_stays_unloaded() -> None:
    heavy = ("aiohttp.client", "aiohttp.connector", "pydantic")
    code = f"import sys, agent.server; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
    whole = (
        "import agent.http_server, aiohttp; print(aiohttp.ClientSession.__name__, aiohttp.__version__ != 'unloaded')"
    )
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["ClientSession", "True"]


def test_an_agent_that_nobody_asks_does_nothing() -> None:
    with OpsAgent() as agent:
        assert min(_switches_in(agent.pid, 2.0) for _ in range(3)) <= 4  # it still settles in the first


def _switches_in(pid: int, seconds: float) -> int:
    before = _switches(pid)
    time.sleep(seconds)  # what is counted is what it does in a while
    return _switches(pid) - before


def _switches(pid: int) -> int:
    """How often it was woken: voluntary context switches of all its threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t") for line in (task / "status").read_text().splitlines() if ":\t" in line)
        total += int(status["voluntary_ctxt_switches"])
    return total
