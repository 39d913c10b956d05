"""An agent whose stderr can't be written: a file on a disk that is full, or a pipe that nobody reads any more."""

from __future__ import annotations

import signal

import pytest

from opsexec import Exec
from tests.parts.agent_calls import grant, rpc
from tests.parts.ops_agent import OpsAgent
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
MUTE = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
from agent.cli import main
sys.exit(main())
"""


async def test_an_agent_that_cannot_say_anything_serves_and_reloads_all_the_same() -> None:
    agent = OpsAgent(grant("exec:/bin/false"), program=("-c", MUTE))
    agent.begin()
    try:
        await eventually(agent.socket.exists, within_s=60, what="it listens")
        agent.write_config(grant("exec:/bin/true"))
        agent.send(signal.SIGHUP)
        await eventually(lambda: "agent.reload" in str(agent.records()), within_s=60, what="it has read it again")
        async with rpc(agent) as ex:
            assert (await ex.run(Exec(["/bin/true"]))).ok
        assert agent.end() == 0
    finally:
        agent.__exit__(None, None, None)
