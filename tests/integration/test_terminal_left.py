"""Terminals whose opener goes, or gives up: their end is in the audit all the same."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import AgentRpc, AuditLog, CapabilitySet, ConnectionLost, Tty
from opsexec.hosts import agent_terminal

LEAVES = """
import asyncio, sys
from opsexec import AuditLog, CapabilitySet, Tty, connect
async def main(audit):
    ex = connect("local:", capabilities=CapabilitySet.everything(), audit=audit)
    terminal = await ex.open_tty(Tty(argv=("/bin/sh", "-c", "echo here; exec sleep 300")))
    while b"here" not in await terminal.read():
        pass
    raise SystemExit(7)
with AuditLog.open(sys.argv[1]) as audit:
    asyncio.run(main(audit))
"""


def records(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_program_that_leaves_its_loop_with_a_terminal_open_has_its_end_in_the_audit(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(log)],
        timeout=100,
        check=False,
        capture_output=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.returncode == 7, done.stderr
    allowed, ended = records(log)
    assert allowed["decision"] == "allow"
    assert ended["run"] == allowed["run"]
    assert ended["outcome"]


@pytest.mark.anyio
async def test_a_terminal_closed_before_its_agent_was_reached_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_terminal, "CLOSE_S", 0.2)
    path = tmp_path / "agent.sock"
    log = tmp_path / "audit.jsonl"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first, AuditLog.open(log) as audit:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))  # the only place: an agent that takes nobody any more
        async with AgentRpc(f"agent+unix://{path}", capabilities=CapabilitySet.everything(), audit=audit) as agent:
            terminal = await agent.open_tty(Tty(argv=("/bin/sh",)))
            async with asyncio.timeout(60):
                await terminal.aclose()
                with pytest.raises(ConnectionLost, match="nothing was begun"):
                    await terminal.wait()
    allowed, ended = records(log)
    assert allowed["decision"] == "allow"
    assert ended["run"] == allowed["run"]
