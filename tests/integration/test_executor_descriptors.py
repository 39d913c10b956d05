"""A process that is short of file descriptors: each local step works or is a typed error, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.parts.process_tree import processes_with_argument

NAP = f"61.42{os.getpid()}"
SHORT = f"""
import asyncio, os, resource
from opsexec import CapabilitySet, Exec, NullAudit, OpsError, connect

async def step(ex):
    try:
        await ex.run(Exec(argv=("sleep", "{NAP}"), timeout_s=0.2))
    except OpsError as error:
        return type(error).__name__

async def main():
    async with connect("local:", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        await ex.run(Exec(argv=("cat",), stdin="what a first step loads is loaded"))
        await asyncio.to_thread(int)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        before = len(os.listdir("/proc/self/fd"))
        for left in range(10):
            held = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                for _ in range(left):
                    os.close(held.pop())
            print(left, await step(ex))
            for fd in held:
                os.close(fd)
        print("left open:", len(os.listdir("/proc/self/fd")) - before)

asyncio.run(main())
"""


def test_each_step_works_or_is_a_typed_error_and_nothing_is_left_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
    )
    *steps, left = done.stdout.splitlines()
    assert done.stderr == ""
    assert [line.split()[1] for line in steps[:3]] == ["StepFailed"] * 3
    assert steps[-1].split()[1] == "StepTimeout"
    assert left in ("left open: 0", "left open: 1")  # /dev/null stays open for the next
    assert not processes_with_argument(NAP)
