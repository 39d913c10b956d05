"""A local program's status, where who started this process, or another part of it, has children thrown away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import OpsError, Shell
from opsexec.executor import Stream
from tests.parts.process_tree import alive
from tests.parts.targets import Target

IGNORING = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


def started_ignoring(*words: str) -> subprocess.CompletedProcess[str]:
    """Run this Python, with SIGCHLD ignored as some supervisors leave it."""
    return subprocess.run(
        [sys.executable, "-c", IGNORING, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
    )


@pytest.mark.parametrize(("script", "code"), [("true", 0), ("exit 7", 1)])
def test_the_command_line_learns_how_a_program_ended_whoever_started_it(script: str, code: int) -> None:
    done = started_ignoring("-m", "opsexec.cli", "exec", "local:", "--", "sh", "-c", script)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_in_a_process_that_ignores_its_children_refuses_a_local_step() -> None:
    code = (
        "import asyncio\n"
        "from opsexec import CapabilitySet, HostUnsuitable, Shell, connect\n"
        "async def work():\n"
        "    async with connect('local:', capabilities=CapabilitySet.everything()) as ex:\n"
        "        try:\n"
        "            await ex.run(Shell(action='t', script='exit 7'))\n"
        "        except HostUnsuitable as error:\n"
        "            print(error.message, '/', error.hint)\n"
        "asyncio.run(work())\n"
    )
    done = started_ignoring("-c", code)
    assert "ignores SIGCHLD" in done.stdout, done.stderr
    assert "SIG_DFL" in done.stdout


class TakesTheStatus:
    """A sink that waits for the program itself, before the event loop can: the program says its pid and a child's."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.child = 0

    async def write(self, stream: Stream, data: bytes) -> None:
        """Let the program end, and take what it ends with."""
        program, self.child = map(int, data.split())
        self.gate.write_text("go\n")
        os.waitpid(program, 0)  # noqa: ASYNC222  # it is to stand before the loop


@pytest.mark.anyio
async def test_a_status_that_another_part_of_the_process_took_is_no_success(local: Target, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    sink = TakesTheStatus(gate)
    async with asyncio.timeout(60), local.connect() as ex:
        with pytest.raises(OpsError, match="another part of this process") as caught:
            await ex.run_streaming(
                Shell(action="t", script=f"sleep 600 & echo $$ $!; read -r go < {gate}; exit 7"), sink
            )
    assert caught.value.hint
    assert sink.child
    assert not alive(sink.child)
