"""Many steps at once over one connection: no error, no mixed output, nothing kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import Exec, Shell, StepFailed
from tests.parts.process_tree import descendants
from tests.parts.sshd import Sshd
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


def far_halves(server: Sshd) -> list[int]:
    """Pids of the sessions that a server's connections hold on the host."""
    assert server.process is not None
    return [p.pid for p in descendants(server.process.pid) if p.comm.startswith("python")]


async def test_two_hundred_steps_at_once_over_a_default_sshd(ssh_target: Target, sshd: Sshd) -> None:
    """MaxSessions is 10: with a channel a step, most would be refused."""
    assert sshd.max_sessions == 10
    logins = sshd.logins()
    async with ssh_target.connect() as ex:
        steps = [Shell(action="t", script=f"echo {n}; sleep 0.2; exit {n % 3}") for n in range(200)]
        outputs = await asyncio.gather(*map(ex.run_streaming, steps))
    assert [output.text for output in outputs] == [f"{n}\n" for n in range(200)]
    assert [output.exit_code for output in outputs] == [n % 3 for n in range(200)]
    assert sshd.logins() - logins == 1


async def test_a_hundred_local_steps_at_once(local: Target) -> None:
    async with local.connect() as ex:
        steps = [Shell(action="t", script=f"echo {n}; exit {n % 3}") for n in range(100)]
        outputs = await asyncio.gather(*map(ex.run_streaming, steps))
    assert [(output.text, output.exit_code) for output in outputs] == [(f"{n}\n", n % 3) for n in range(100)]


async def test_outputs_at_once_are_never_mixed(target: Target) -> None:
    """Both streams of each, in blocks of many sizes."""
    script = "import sys\nfor n in range(1, 400): print(sys.argv[1] * n, file=(sys.stdout, sys.stderr)[n % 2])"
    async with target.connect() as ex:
        letters = "abcdefghij"
        outputs = await asyncio.gather(*(ex.run(Exec(argv=("python3", "-c", script, letter))) for letter in letters))
    for letter, output in zip(letters, outputs, strict=True):
        wanted = "".join(letter * n + "\n" for n in range(2, 400, 2)).encode()
        assert output.digest == "sha256:" + hashlib.sha256(wanted).hexdigest()
        assert set(output.stderr) == {ord(letter), ord("\n")}
        assert output.stderr_bytes == sum(n + 1 for n in range(1, 400, 2))


async def test_a_failing_step_disturbs_no_other(target: Target) -> None:
    async with target.connect() as ex:
        good = [Exec(argv=("echo", str(n))) for n in range(10)]
        bad = [Exec(argv=("no-such-program",)), Exec(argv=("true",), cwd="/nowhere"), Exec(argv=("false",))]
        done = await asyncio.gather(*map(ex.run, [*good, *bad * 5]), return_exceptions=True)
    assert [output.text for output in done[:10] if not isinstance(output, BaseException)] == [
        f"{n}\n" for n in range(10)
    ]
    assert all(isinstance(error, StepFailed) for error in done[10:])


async def test_a_host_out_of_file_descriptors_says_so_and_recovers(ssh_root: Target, sshd: Sshd) -> None:
    before = set(far_halves(sshd))
    async with ssh_root.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        (far,) = set(far_halves(sshd)) - before
        held, (_, most) = set(os.listdir(f"/proc/{far}/fd")), resource.prlimit(far, resource.RLIMIT_NOFILE)
        steps = [Shell(action="t", script="cat; sleep 0.1", stdin="x") for _ in range(8)]
        for room in range(1, 16):  # each place where the last descriptor may be taken
            resource.prlimit(far, resource.RLIMIT_NOFILE, (len(held) + room, most))
            done = await asyncio.gather(*map(ex.run, steps), return_exceptions=True)
            failed = [error for error in done if isinstance(error, BaseException)]
            for error in failed:
                assert isinstance(error, StepFailed)
                assert "Too many open files" in error.message
            assert failed
            assert set(os.listdir(f"/proc/{far}/fd")) == held
        resource.prlimit(far, resource.RLIMIT_NOFILE, (most, most))
        assert (await ex.run(Shell(action="t", script="echo on"))).text == "on\n"


CROWD = """
import asyncio, os, resource
from opsexec import CapabilitySet, NullAudit, OpsError, Shell, connect
async def main():
    async with connect("local:", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        await ex.run(Shell(action="t", script="true"))
        held, hard = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        steps = [Shell(action="t", script="cat; sleep 0.1", stdin="x") for _ in range(8)]
        for room in range(1, 16):  # each place where the last descriptor may be taken
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + room, hard))
            done = await asyncio.gather(*map(ex.run, steps), return_exceptions=True)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            failed = [error for error in done if isinstance(error, BaseException)]
            for error in failed:
                assert isinstance(error, OpsError) and "Too many open files" in error.message, (room, error)
            assert failed, room
            assert (await ex.run(Shell(action="t", script="echo on"))).text == "on\\n"
            assert len(os.listdir("/proc/self/fd")) == held, room
asyncio.run(main())
"""


async def test_a_caller_out_of_file_descriptors_says_so_and_recovers() -> None:
    argv = [sys.executable, "-W", "error", "-c", CROWD]
    done = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2]
    )
    assert (done.stderr, done.returncode) == ("", 0)
