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
from opsexec.hosts.port import ProcessSpec
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


class _Ready:
    """A sink that waits for the guard's one line."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        if stream == "stdout":
            self.event.set()


def removing(container: str) -> list[Request]:
    """Return the request that ends a container and removes it with its volumes."""
    return [("DELETE", f"/containers/{container}?force=1&v=1", None)]


def entering(container: str, user: str, words: list[str]) -> list[Request]:
    """Return the requests that run a program in a container."""
    body = {"Cmd": words, "User": user, "AttachStdout": False, "AttachStderr": False}
    return [("POST", f"/containers/{container}/exec", body), ("POST", "/exec/{Id}/start", {"Detach": True})]


@asynccontextmanager
async def guarded(host: Host, run: str, socket: str, version: str, requests: list[Request]) -> AsyncIterator[None]:
    """Have requests made to an engine when the caller is lost, as long as this lasts.

    `socket`: the engine's, on the host. Raises HostUnsuitable where no guard can be had; nothing is started then.
    """
    ready = _Ready()
    over = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield json.dumps(requests).encode() + b"\n"
        await over.wait()
        yield b"over\n"

    argv = ("python3", "-I", "-S", "-c", SOURCE, socket, version)
    spec = ProcessSpec(run=run, programs=PYTHON, admitted=PYTHON, argv=argv)
    recorder = Recorder(ready)
    running = asyncio.ensure_future(host.run_process(spec, recorder, lines()))
    waiting = asyncio.ensure_future(ready.event.wait())
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not ready.event.is_set():
            ended = await running
            said = recorder.tail(1).decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            text = f"the container's guard ended ({ended.signal or ended.exit_code}): {said}"
            raise HostUnsuitable(text, host=host.name, hint="it needs python3 there, and the engine's socket")
        yield
    finally:
        waiting.cancel()
        over.set()
        try:
            await asyncio.wait([running], timeout=END_S)
        finally:
            running.cancel()
            await asyncio.wait([running])
