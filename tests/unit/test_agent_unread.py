"""A connection of nobody yet: not a byte of it is read, on the tests' own Python and on the system's."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.plain_bottles import SYSTEM_PYTHON, same_python

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import asyncio, socket
from types import SimpleNamespace
from aiohttp import web
from agent.connection import Connection

async def main():
    asked = asyncio.Event()
    read = []

    async def prove(connection):
        asked.set()
        await asyncio.Event().wait()

    class Watched(Connection):
        def _take_place(self, principal):
            return True

        def _give_place(self):
            pass

        def data_received(self, data):
            read.append(data)

    async def answer(request):
        return web.Response()

    gate = SimpleNamespace(server=web.Server(answer), asking=set())
    gate.hang_ups = SimpleNamespace(watch=lambda *_: None, forget=lambda *_: None)
    serving = await asyncio.get_running_loop().create_server(lambda: Watched(gate, "tailnet", prove, None), "127.0.0.1")
    with socket.create_connection(serving.sockets[0].getsockname()) as caller:
        caller.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")  # it is there before anybody is asked who this is
        await asyncio.wait_for(asked.wait(), 10)
        for _ in range(20):
            await asyncio.sleep(0)
    serving.close()
    print(read)

asyncio.run(main())
"""


@pytest.mark.parametrize("python", [sys.executable, str(SYSTEM_PYTHON)], ids=["own", "system"])
def test_nothing_is_read_of_a_connection_before_it_is_known_whose_it_is(python: str) -> None:
    require(python == sys.executable or same_python(), "needs the system's python3 to be of this version")
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}"}
    done = subprocess.run([python, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr[-2000:]
