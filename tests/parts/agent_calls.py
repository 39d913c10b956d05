"""Ways to ask a running ops-agent: the library's, and bytes as any client may send them."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from opsexec import (
    AgentRpc,
    CapabilitySet,
    NullAudit,
    Shell,
)
from tests.parts.ops_agent import OpsAgent
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

ME = f"unix:{current_user()}"
REPOSITORY = Path(__file__).parents[2]


def rpc(agent: OpsAgent, *capabilities: str, **more: Any) -> AgentRpc:
    held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
    return AgentRpc(agent.url, capabilities=held, audit=NullAudit(), **more)


def grant(*capabilities: str, **more: Any) -> list[dict[str, Any]]:
    return [{"principal": ME, "capabilities": list(capabilities), **more}]


def http(agent: OpsAgent, head: str, body: bytes = b"", *, within_s: float = 10.0) -> bytes:
    """What the agent answers to raw bytes, until it closes or says the whole of a short answer."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(within_s)
        link.connect(str(agent.socket))
        link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        said = b""
        while block := link.recv(65536):
            said += block
    return said


def post(body: bytes, *headers: str, path: str = "/v1/steps") -> tuple[str, bytes]:
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\n".join(lines), body


JSON = ("Content-Type: application/json", "Accept: application/x-ndjson")


def json_lines(said: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.partition(b"\r\n\r\n")[2].splitlines() if line.startswith(b"{")]


async def started_sleeper(ex: AgentRpc, tmp_path: Path) -> tuple[asyncio.Task[Any], int]:
    step = Shell("t.sleep", f"setsid sleep 300 & echo $! > {tmp_path}/pid; wait")
    task = asyncio.create_task(ex.run(step))
    file = tmp_path / "pid"
    await eventually(lambda: file.exists() and file.read_text().endswith("\n"), within_s=10, what="it runs")
    return task, int(file.read_text())
