"""What ends a container whose caller is lost: a program beside the engine, in the process tree of the run.

It is told by the end of its input, or by the SIGTERM that a lost caller's process tree gets on every transport; the
request is sent at once, and an engine does it whether or not somebody waits for its answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from opsexec.errors import HostUnsuitable
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder

if TYPE_CHECKING:
    from opsexec.executor import Stream
    from opsexec.hosts.port import Host

PYTHON = ("/usr/bin/python3", "/usr/local/bin/python3")
READY_S = 60.0
END_S = 10.0
"""Seconds that a guard may take to go."""

SOURCE = """
import json, os, signal, socket, sys
engine, version = sys.argv[1:3]
def ask(method, target, body=None):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(engine)
    data = b"" if body is None else json.dumps(body).encode()
    s.sendall(("%s /v%s%s HTTP/1.1\\r\\nHost: docker\\r\\nConnection: close\\r\\nContent-Type: application/json\\r\\n"
               "Content-Length: %d\\r\\n\\r\\n" % (method, version, target, len(data))).encode() + data)
    said = b""
    while len(said) < 65536:
        more = s.recv(65536)
        if not more:
            break
        said += more
    return said.partition(b"\\r\\n\\r\\n")[2]
wanted = []
def end():
    made = None
    for method, target, body in wanted:
        said = ask(method, target.replace("{Id}", made or ""), body)
        at, to = said.find(b"{"), said.rfind(b"}")
        made = json.loads(said[at:to + 1]).get("Id") if 0 <= at < to else None
def told(*_):
    end()
    os._exit(0)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGHUP, told)
wanted = json.loads(sys.stdin.readline())
sys.stdout.write("ready\\n")
sys.stdout.flush()
if not sys.stdin.readline():
    end()
"""
"""What the guard is: told requests in one line, it makes them unless another line comes before the end of its input."""

Request = tuple[str, str, dict[str, Any] | None]


def removing(container: str) -> list[Request]:
    """Return the request that ends a container and removes it with its volumes."""
    return [("DELETE", f"/containers/{container}?force=1&v=1", None)]


def entering(container: str, user: str, words: list[str]) -> list[Request]:
    """Return the requests that run a program in a container."""
    body = {"Cmd": words, "User": user, "AttachStdout": False, "AttachStderr": False}
    return [("POST", f"/containers/{container}/exec", body), ("POST", "/exec/{Id}/start", {"Detach": True})]


class Guard:
    """The guard of one run, from its start on. It does nothing before it was told what.

    `settled`: what it would do is done, or needn't be; while it isn't so, it does it when it is let go.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._requests: asyncio.Future[list[Request]] = asyncio.get_running_loop().create_future()
        self.recorder = Recorder(self)
        self.settled = False
        self.running: asyncio.Future[ProcessExit]

    async def write(self, stream: Stream, data: bytes) -> None:
        """As a sink does: its one line says that it watches."""
        if stream == "stdout":
            self._ready.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """What it is told."""
        yield json.dumps(await self._requests).encode() + b"\n"
        await self._over.wait()
        if self.settled:
            yield b"over\n"

    async def watches(self, requests: list[Request]) -> None:
        """Return when it would make these requests for a lost caller; raises HostUnsuitable where it can't be had."""
        self._requests.set_result(requests)
        waiting = asyncio.ensure_future(self._ready.wait())
        either: set[asyncio.Future[Any]] = {self.running, waiting}
        try:
            async with asyncio.timeout(READY_S):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self._ready.is_set():
            ended = await self.running
            said = self.recorder.tail(1).decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            text = f"the container's guard ended ({ended.signal or ended.exit_code}): {said}"
            raise HostUnsuitable(text, host=self._host, hint="it needs python3 there, and the engine's socket")

    async def let_go(self) -> None:
        """End it. Where nothing is settled (a caller that was cancelled twice), it makes its requests now."""
        self._over.set()
        try:
            if self._ready.is_set():
                await asyncio.wait([self.running], timeout=END_S)
        finally:
            self.running.cancel()
            await asyncio.wait([self.running])


@asynccontextmanager
async def guarded(host: Host, run: str, socket: str, version: str) -> AsyncIterator[Guard]:
    """Lend a guard, as long as this lasts. `socket`: the engine's, on the host."""
    guard = Guard(host.name)
    argv = ("python3", "-I", "-S", "-c", SOURCE, socket, version)
    spec = ProcessSpec(run=run, programs=PYTHON, admitted=PYTHON, argv=argv)
    guard.running = asyncio.ensure_future(host.run_process(spec, guard.recorder, guard.lines()))
    try:
        yield guard
    finally:
        await guard.let_go()
