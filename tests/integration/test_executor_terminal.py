"""Terminals: a real one for the program, its keys and size from the caller, and its end in the audit."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from opsexec import CapabilityDenied, ConnectionLost, Exec, StepTimeout, Tty
from opsexec.errors import ProgramNotFound
from opsexec.executor import TtySession
from tests.parts.process_tree import processes_with_argument
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


def shell(script: str, **fields: object) -> Tty:
    return Tty(argv=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]  # passed on as they are


async def read_until(terminal: TtySession, wanted: bytes, within_s: float = 10) -> bytes:
    """Everything up to and with what is waited for."""
    seen = b""
    async with asyncio.timeout(within_s):
        while wanted not in seen:
            block = await terminal.read()
            assert block, f"the end came after {seen!r}"
            seen += block
    return seen


async def read_all(terminal: TtySession, within_s: float = 10) -> bytes:
    seen = b""
    async with asyncio.timeout(within_s):
        while block := await terminal.read():
            seen += block
    return seen


async def test_a_program_gets_a_terminal_of_its_own(terminal_target: Target) -> None:
    script = (
        "test -t 0 && test -t 1 && test -t 2 && tty >/dev/null && echo yes; echo $TERM; stty size; ps -o stat= -p $$"
    )
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell(script, columns=123, rows=45, term="vt100"))
        said = (await read_all(terminal)).decode().split("\r\n")
        output = await terminal.wait()
        await terminal.aclose()
    assert said[:3] == ["yes", "vt100", "45 123"]
    assert said[3].startswith("S")
    assert "s" in said[3]  # a session leader, which owns its terminal
    assert (output.exit_code, output.signal) == (0, None)
    assert output.stdout_bytes == len("\r\n".join(said))


async def test_exit_codes_and_signals_are_told_apart(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        for script, exit_code, signal in (("exit 7", 7, None), ("kill -TERM $$", None, "SIGTERM")):
            terminal = await ex.open_tty(shell(script))
            await read_all(terminal)
            output = await terminal.wait()
            await terminal.aclose()
            assert (output.exit_code, output.signal) == (exit_code, signal)


async def test_keys_arrive_and_control_c_is_a_signal(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(
            shell("trap 'echo caught' INT; echo ready; read line; echo got $line; cat; echo on")
        )
        await read_until(terminal, b"ready")
        await terminal.write(b"hel")
        await terminal.write(b"lo\r")
        await read_until(terminal, b"got hello")
        await terminal.write(b"again\r")
        await read_until(terminal, b"again\r\nagain\r\n")
        await terminal.write(b"\x03")
        rest = await read_all(terminal)
        assert rest.index(b"caught") < rest.index(b"on\r\n")
        assert (await terminal.wait()).exit_code == 0
        await terminal.aclose()


async def test_a_new_size_is_seen_by_the_program(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        script = "trap 'stty size' WINCH; echo ready; for i in $(seq 200); do sleep 0.05; done"
        terminal = await ex.open_tty(shell(script))
        await read_until(terminal, b"ready")
        terminal.resize(91, 33)
        await read_until(terminal, b"33 91")
        terminal.resize(17, 5)
        await read_until(terminal, b"5 17")
        await terminal.aclose()
        terminal.resize(80, 24)  # nobody is there any more: no error


async def test_control_d_ends_the_input(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
        await terminal.write(b"x\r\x04")
        assert await read_all(terminal) == b"x\r\nx\r\n"
        await terminal.aclose()


async def test_much_output_waits_for_its_reader_and_comes_whole(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell("stty -opost; seq 1 200000"))
        await asyncio.sleep(0)
        said = await read_all(terminal, 30)
        await terminal.aclose()
    assert said == b"".join(b"%d\n" % n for n in range(1, 200001))


async def test_the_end_is_known_without_reading(terminal_target: Target) -> None:
    """A caller that only waits gets the end, whatever few lines stand unread; they can still be read after it."""
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell("for i in $(seq 60); do echo line $i; sleep 0.005; done; exit 5"))
        output = await asyncio.wait_for(terminal.wait(), 10)
        assert output.exit_code == 5
        assert (await read_all(terminal)).count(b"line") == 60
        await terminal.aclose()


async def test_closing_ends_the_program_while_somebody_reads(terminal_target: Target) -> None:
    nap = "66.0001"
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell(f"echo ready; sleep {nap} & setsid sleep {nap} & wait"))
        await read_until(terminal, b"ready")
        reading = asyncio.create_task(read_all(terminal))
        await eventually(lambda: len(processes_with_argument(nap)) == 2, within_s=20, what="both to begin")
        begun = time.monotonic()
        await asyncio.wait_for(terminal.aclose(), 20)
        assert await asyncio.wait_for(reading, 20) is not None
        await eventually(
            lambda: not processes_with_argument(nap), within_s=begun + 1 - time.monotonic(), what="their end"
        )
        assert await terminal.read() == b""
        await terminal.aclose()


async def test_closing_ends_a_program_that_talks_without_end(terminal_target: Target) -> None:
    word = "opsexec-terminal-endless"
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(Tty(argv=("yes", word)))
        await read_until(terminal, word.encode())
        await asyncio.wait_for(terminal.aclose(), 20)
        assert not processes_with_argument(word)
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_a_deadline_ends_the_program_and_is_a_typed_error(terminal_target: Target) -> None:
    nap = "66.0002"
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell(f"sleep {nap} & sleep {nap}", timeout_s=0.5))
        with pytest.raises(StepTimeout):
            await asyncio.wait_for(terminal.wait(), 20)
        assert not processes_with_argument(nap)
        await terminal.aclose()


async def test_closing_the_executor_ends_its_terminals(terminal_target: Target) -> None:
    nap = "66.0003"
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell(f"echo ready; sleep {nap}"))
        await read_until(terminal, b"ready")
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(terminal.wait(), 20)
    assert await read_all(terminal) == b""
    await asyncio.wait_for(terminal.aclose(), 20)
    await eventually(lambda: not processes_with_argument(nap), within_s=1, what="the program's end")


async def test_several_terminals_and_steps_share_the_connection(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        terminals = await asyncio.gather(*(ex.open_tty(Tty(argv=("/bin/cat",))) for _ in range(5)))
        for n, terminal in enumerate(terminals):
            await terminal.write(b"%d\r" % n)
        assert (await ex.run(Exec(argv=("echo", "step")))).text == "step\n"
        for n, terminal in enumerate(terminals):
            await read_until(terminal, b"%d\r\n%d\r\n" % (n, n))
            await terminal.aclose()


async def test_a_terminal_for_another_user(terminal_target: Target) -> None:
    user = "nobody" if terminal_target.login == "root" else terminal_target.login
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(shell("id -un; test -O $(tty) && echo owner", run_as=user))
        assert (await read_all(terminal)).split() == [user.encode(), b"owner"]
        assert (await terminal.wait()).exit_code == 0
        await terminal.aclose()


async def test_a_terminal_needs_its_own_grant(terminal_target: Target) -> None:
    async with terminal_target.connect("exec:**") as ex:
        with pytest.raises(CapabilityDenied, match="tty:"):
            await ex.open_tty(shell("true"))
    async with terminal_target.connect("tty:/bin/cat") as ex:
        terminal = await ex.open_tty(Tty(argv=("/bin/cat",)))
        await terminal.aclose()
        with pytest.raises(CapabilityDenied, match="tty:"):
            await ex.open_tty(Tty(argv=("/bin/cat", "/etc/passwd")))


async def test_a_program_that_is_not_there_is_a_typed_error(terminal_target: Target) -> None:
    async with terminal_target.connect() as ex:
        terminal = await ex.open_tty(Tty(argv=("no-such-program",)))
        with pytest.raises(ProgramNotFound):
            await asyncio.wait_for(terminal.wait(), 20)
        assert await read_all(terminal) == b""
        await terminal.aclose()


async def test_every_terminals_end_is_in_the_audit_once(terminal_target: Target, tmp_path: Path) -> None:
    async with terminal_target.connect() as ex:
        ended = await ex.open_tty(shell("echo hi; exit 3"))
        await read_all(ended)
        await ended.wait()
        await ended.aclose()
        closed = await ex.open_tty(Tty(argv=("sleep", "66.0004")))
        await closed.aclose()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    allowed = [line["run"] for line in lines if line["decision"] == "allow" and line["step"]["type"] == "tty"]
    outcomes = {line["run"]: line["outcome"] for line in lines if line["decision"] is None and line["outcome"]}
    assert len(allowed) == len(outcomes) == 2
    assert outcomes[allowed[0]]["exit_code"] == 3
    assert outcomes[allowed[1]]["signal"] in ("SIGTERM", "SIGHUP")
