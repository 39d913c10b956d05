"""Terminals at a real agent, as tests open, read and watch them; and asking as another user of this machine."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket

from opsexec import AgentRpc, CapabilitySet, NullAudit, Tty
from opsexec.executor import Stream, TtySession
from opsexec.hosts.agent_host import UnixWay
from opsexec.hosts.agent_link import AgentLink
from tests.parts.ops_agent import OpsAgent


def shell(script: str, **fields: object) -> Tty:
    return Tty(argv=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]  # passed on as they are


def rpc(agent: OpsAgent, *capabilities: str, user: str | None = None) -> AgentRpc:
    """An executor that holds these capabilities (none named: everything), connecting as a user of this machine."""
    held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
    executor = AgentRpc(agent.url, capabilities=held, audit=NullAudit())
    if user is not None:
        executor._agent._way = WayAs(str(agent.socket), user)
    return executor


class WayAs(UnixWay):
    """Connects as another user, whom the kernel then names to the agent; needs root."""

    def __init__(self, path: str, user: str) -> None:
        super().__init__(path)
        self._uid = pwd.getpwnam(user).pw_uid

    async def open(self, host: str) -> AgentLink:
        link = socket.socket(socket.AF_UNIX)
        os.seteuid(self._uid)
        try:
            link.connect(self.path)
        finally:
            os.seteuid(0)
        link.setblocking(False)
        _, protocol = await asyncio.get_running_loop().create_unix_connection(lambda: AgentLink(host), sock=link)
        return protocol


async def read_until(terminal: TtySession, wanted: bytes, within_s: float = 10) -> bytes:
    """Everything up to and with what is waited for."""
    seen = bytearray()
    try:
        async with asyncio.timeout(within_s):
            while wanted not in seen[-(len(wanted) + (1 << 18)) :]:
                block = await terminal.read()
                assert block, f"the end came after {bytes(seen[-2000:])!r}"
                seen += block
    except TimeoutError as error:
        raise TimeoutError(f"no {wanted!r} within {within_s:g} s, but {bytes(seen[-2000:])!r}") from error
    return bytes(seen)


async def read_all(terminal: TtySession, within_s: float = 20) -> bytes:
    seen = b""
    async with asyncio.timeout(within_s):
        while block := await terminal.read():
            seen += block
    return seen


class Viewer:
    """The sink of who watches. `held` keeps it from taking anything."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.sizes: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.held = asyncio.Event()
        self.held.set()

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.held.wait()
        self.seen += data

    def watch(self, executor: AgentRpc, run: str) -> asyncio.Task[int | None]:
        return asyncio.create_task(
            executor.terminals.watch(
                run, self, on_size=lambda columns, rows: self.sizes.append((columns, rows)), on_note=self.notes.append
            )
        )


async def run_of(executor: AgentRpc) -> str:
    """The run of the one terminal that is open there."""
    (run,) = [each.run for each in await executor.terminals.kept() if each.live]
    return str(run)
