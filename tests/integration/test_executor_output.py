"""What a program says and how it ends arrives whole, whatever carries it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3

from opsexec import CollectSink, Exec, LineSink, Shell, StepFailed
from opsexec.errors import ProgramNotFound
from opsexec.executor import TAIL_BYTES, Stream
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


class CountingSink:
    """Counts and hashes what it is given, keeping nothing."""

    def __init__(self) -> None:
        self.counts = {"stdout": 0, "stderr": 0}
        self.digest = blake3()

    async def write(self, stream: Stream, data: bytes) -> None:
        self.counts[stream] += len(data)
        if stream == "stdout":
            self.digest.update(data)


def peak_memory_kib() -> int:
    """The most resident memory this process had since `forget_peak_memory`, in KiB (proc(5), VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM in /proc/self/status")


def forget_peak_memory() -> None:
    """Start counting the peak again (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


async def test_an_exit_code_arrives_as_it_is(target: Target) -> None:
    async with target.connect() as ex:
        for code in (0, 1, 2, 126, 127, 128, 255):
            output = await ex.run_streaming(Shell(action="t", script=f"exit {code}"))
            assert (output.exit_code, output.signal, output.ok) == (code, None, code == 0)


async def test_a_signal_is_named_and_is_no_exit_code(target: Target) -> None:
    async with target.connect() as ex:
        for name in ("TERM", "KILL", "SEGV", "PIPE", "HUP", "USR1", "INT"):
            output = await ex.run_streaming(Shell(action="t", script=f"kill -{name} $$"))
            assert (output.exit_code, output.signal) == (None, f"SIG{name}")
        output = await ex.run_streaming(Shell(action="t", script="kill -40 $$"))
        assert (output.exit_code, output.signal) == (None, "SIG40")


async def test_run_raises_what_run_streaming_returns(target: Target) -> None:
    async with target.connect() as ex:
        with pytest.raises(StepFailed, match="exit status 3: so it goes") as caught:
            await ex.run(Shell(action="t", script="echo out; echo so it goes >&2; exit 3"))
    assert caught.value.output is not None
    assert caught.value.output.stdout == b"out\n"
    assert caught.value.host == ex.host


async def test_a_program_that_is_not_there_says_where_it_was_looked_for(target: Target) -> None:
    async with target.connect() as ex:
        with pytest.raises(ProgramNotFound, match="no-such-program") as caught:
            await ex.run(Exec(argv=("no-such-program",)))
        assert "/usr/bin/no-such-program" in (caught.value.hint or "")
        assert (await ex.run(Exec(argv=("true",)))).ok


async def test_stdout_and_stderr_are_told_apart_byte_for_byte(target: Target) -> None:
    script = r"printf 'out\377\000\n\r\n'; printf 'err\376\000' >&2; printf 'more'"
    sink = CollectSink()
    async with target.connect() as ex:
        output = await ex.run(Shell(action="t", script=script), sink)
    assert sink.stdout == output.stdout == b"out\xff\0\n\r\nmore"
    assert sink.stderr == output.stderr == b"err\xfe\0"
    assert (output.stdout_bytes, output.stderr_bytes) == (12, 5)
    assert output.digest == "sha256:" + hashlib.sha256(sink.stdout).hexdigest()
    assert not output.truncated


async def test_every_byte_value_comes_through(target: Target) -> None:
    every = bytes(range(256)) * 64
    async with target.connect() as ex:
        output = await ex.run(
            Exec(argv=("python3", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 64)"))
        )
    assert output.stdout == every


async def test_nothing_said_is_nothing_heard(target: Target) -> None:
    async with target.connect() as ex:
        output = await ex.run(Exec(argv=("true",)))
    assert (output.stdout, output.stderr, output.stdout_bytes) == (b"", b"", 0)
    assert output.digest == "sha256:" + hashlib.sha256(b"").hexdigest()


async def test_ten_thousand_lines_come_in_order_and_the_last_needs_no_newline(target: Target) -> None:
    lines: list[bytes] = []
    sink = LineSink(lambda stream, line: lines.append(line) if stream == "stdout" else None)
    async with target.connect() as ex:
        await ex.run(Shell(action="t", script="seq 1 10000; printf end"), sink)
    await sink.close()
    assert lines == [b"%d" % n for n in range(1, 10001)] + [b"end"]


async def test_the_kept_tail_is_the_end_and_says_that_it_is_not_all(target: Target) -> None:
    async with target.connect() as ex:
        output = await ex.run(Shell(action="t", script="head -c 1000000 /dev/zero; printf end"))
    assert output.stdout == b"\0" * (TAIL_BYTES - 3) + b"end"
    assert output.stdout_bytes == 1_000_003
    assert output.digest == "blake3:" + blake3(b"\0" * 1_000_000 + b"end").hexdigest()
    assert output.truncated


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["local", "ssh_root"])
async def test_a_gigabyte_streams_in_constant_memory(way: str, request: pytest.FixtureRequest) -> None:
    target: Target = request.getfixturevalue(way)
    sink = CountingSink()
    async with target.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        forget_peak_memory()
        before = peak_memory_kib()
        output = await ex.run(Exec(argv=("head", "-c", str(1 << 30), "/dev/zero")), sink)
    assert sink.counts["stdout"] == output.stdout_bytes == 1 << 30
    assert output.digest == "blake3:" + sink.digest.hexdigest()
    assert peak_memory_kib() - before < 64 << 10


async def test_the_first_line_arrives_while_the_program_still_runs(target: Target, shared_dir: Path) -> None:
    """The program waits for a file that is made only once its first line has been seen."""
    seen = shared_dir / "seen"

    class FirstLine:
        async def write(self, stream: Stream, data: bytes) -> None:
            seen.touch()

    async with target.connect() as ex:
        script = f"echo first; for i in $(seq 500); do test -e {seen} && exit 7; sleep 0.01; done; exit 8"
        output = await ex.run_streaming(Shell(action="t", script=script, timeout_s=10), FirstLine())
    assert output.exit_code == 7
