"""Closing an executor ends what still runs, tells whoever waits for it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from opsexec import ConnectionLost, Exec, OpsError, Shell, Tty
from opsexec.hosts.watchdog import Watchdog
from tests.parts.holdings import Holdings
from tests.parts.process_tree import processes_with_argument
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


def naps(marker: str) -> list[int]:
    return processes_with_argument(marker)


async def test_closing_ends_the_steps_under_way_and_tells_their_callers(target: Target) -> None:
    nap = "61.0001"
    async with target.connect() as ex:
        task = asyncio.create_task(ex.run(Exec(argv=("sleep", nap))))
        await eventually(lambda: naps(nap), within_s=10, what="the step to begin")
    with pytest.raises(OpsError) as caught:
        await asyncio.wait_for(task, 20)
    assert isinstance(caught.value, ConnectionLost)
    assert "closed" in caught.value.message
    await eventually(lambda: not naps(nap), within_s=1, what="the end of the program")


async def test_closing_twice_or_unopened_is_no_error(target: Target) -> None:
    ex = target.connect()
    await ex.aclose()
    async with target.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        await ex.aclose()


async def test_an_executor_can_be_used_again_after_it_was_closed(target: Target) -> None:
    ex = target.connect()
    try:
        for _ in range(2):
            assert (await ex.run(Exec(argv=("true",)))).ok
            await ex.aclose()
    finally:
        await ex.aclose()


async def test_nothing_is_left_after_closing(terminal_target: Target) -> None:
    Watchdog.get()  # one for the life of this process
    async with terminal_target.connect() as ex:  # an agent of this process keeps a session for each user
        await ex.run(Exec(argv=("true",)))
        terminal = await ex.open_tty(Tty(argv=("/bin/sh",)))
        await terminal.aclose()
        if terminal_target.login == "root":
            await ex.run(Exec(argv=("true",), run_as="nobody"))
    before = Holdings.now()
    for _ in range(3):
        async with terminal_target.connect() as ex:
            await ex.run(Exec(argv=("cat",), stdin="x"))
            await asyncio.gather(*(ex.run(Shell(action="t", script=f"echo {n}")) for n in range(10)))
            terminal = await ex.open_tty(Tty(argv=("/bin/sh",)))
            await terminal.aclose()
            if terminal_target.login == "root":
                await ex.run(Exec(argv=("true",), run_as="nobody"))
    await eventually(lambda: not before.left_since(), within_s=20, what="the end of " + str(before.left_since()))


PROGRAM = """
import asyncio, sys
from opsexec import CapabilitySet, Exec, NullAudit, Tty, connect
async def main():
    url, key, known = sys.argv[1:4]
    options = dict(identity_files=[key], known_hosts=known, config_files=()) if key else {}
    async with connect(url, capabilities=CapabilitySet.everything(), audit=NullAudit(), **options) as ex:
        print((await ex.run(Exec(argv=("echo", "done")))).text, end="", flush=True)
        terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
        await terminal.aclose()
        if len(sys.argv) > 4:
            await ex.run(Exec(argv=("true",), run_as=sys.argv[4]))
asyncio.run(main())
"""


async def test_a_program_that_used_an_executor_ends_without_a_word(terminal_target: Target) -> None:
    """No ResourceWarning, no task that was never awaited, no exception in a callback."""
    key = str(terminal_target.identity_files[0]) if terminal_target.identity_files else ""
    as_other = ["nobody"] if terminal_target.login == "root" else []
    argv = [sys.executable, "-W", "error", "-c", PROGRAM, terminal_target.url, key, str(terminal_target.known_hosts)]
    where: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 50, "cwd": Path(__file__).parents[2]}
    if terminal_target.tailscaled_socket:
        where["env"] = os.environ | {"OPSEXEC_TAILSCALED_SOCKET": terminal_target.tailscaled_socket}
    done = await asyncio.to_thread(lambda: subprocess.run([*argv, *as_other], check=False, **where))
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
