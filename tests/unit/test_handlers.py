"""What handlers promise beyond single calls: deadlines, endless observations, bounded diffs."""

from __future__ import annotations

import asyncio
import json

import pytest

from opsexec.capability import CapabilitySet
from opsexec.errors import CapabilityDenied, LimitExceeded, ProtocolError, StepFailed, StepTimeout
from opsexec.handlers.diffs import MAX_DIFF_CHARACTERS, MAX_DIFF_LINES, content_diff
from opsexec.handlers.systemctl import parse_show
from opsexec.hosts.answers import HINTS, as_error
from opsexec.sinks import LineSink
from opsexec.steps import Facts, Observe, ReadFile, ServiceStatus, WriteFile
from opsexec.testing import FakeHost, fake_executor

pytestmark = pytest.mark.anyio


class FakeHangingHost(FakeHost):
    """Answers nothing, and knows whether it was cancelled."""

    cancelled = False

    async def call(self, operation, args, *, run_as=None):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("nobody sets that event")


@pytest.mark.parametrize(
    "step",
    [
        ReadFile(path="/f", timeout_s=0.05),
        WriteFile(path="/f", content="x", timeout_s=0.05),
        Facts(timeout_s=0.05),
        Observe(timeout_s=0.05),
        ServiceStatus(name="web", user=True, timeout_s=0.05),
    ],
)
async def test_a_host_that_never_answers_is_a_timeout_and_the_call_is_cancelled(step):
    host = FakeHangingHost()
    with pytest.raises(StepTimeout, match=r"longer than 0\.05 s"):
        await fake_executor(host).run(step)
    assert host.cancelled


async def test_a_timeout_of_the_hosts_own_is_not_taken_for_the_steps():
    class FakeSlowHost(FakeHost):
        async def call(self, operation, args, *, run_as=None):
            raise TimeoutError("the host's")

    with pytest.raises(TimeoutError, match="the host's"):
        await fake_executor(FakeSlowHost()).run(ReadFile(path="/f", timeout_s=5))


async def test_an_observation_goes_on_until_it_is_cancelled():
    seen: list[dict[str, object]] = []
    enough = asyncio.Event()

    def on_line(_stream, line) -> None:
        seen.append(json.loads(line))
        if len(seen) == 3:
            enough.set()

    executor = fake_executor(FakeHost(samples=[{"load": 1}, {"load": 2}, {"load": 3}]))
    task = asyncio.create_task(executor.run(Observe(names=("load",), interval_s=0.05), LineSink(on_line)))
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [sample["load"] for sample in seen[:3]] == [1, 2, 3]


async def test_a_slow_reader_slows_an_observation_down_instead_of_filling_memory():
    class FakeStuckSink:
        async def write(self, stream, data) -> None:
            await asyncio.Event().wait()

    host = FakeHost(samples=[{"load": "x" * 600_000}])
    executor = fake_executor(host)
    task = asyncio.create_task(executor.run(Observe(names=("load",), interval_s=0.05), FakeStuckSink()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.6)
    asked = len(host.calls)
    assert asked <= 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_sink_that_fails_ends_an_observation_with_its_error():
    class FakeBrokenSink:
        async def write(self, stream, data) -> None:
            await asyncio.sleep(0)
            raise ValueError("the sink broke")

    for load in ("short", "x" * 2_000_000):
        executor = fake_executor(FakeHost(samples=[{"load": load}]))
        with pytest.raises(ValueError, match="the sink broke"):
            await executor.run(Observe(names=("load",), interval_s=0.05), FakeBrokenSink())


async def test_an_observation_stops_at_the_output_limit():
    granted = CapabilitySet.of("observe:*", max_output_bytes=100)
    with pytest.raises(LimitExceeded):
        await fake_executor(FakeHost(), granted).run(Observe(names=("load",), interval_s=0.05))


async def test_a_file_longer_than_the_output_limit_is_not_read():
    granted = CapabilitySet.of("fs.read:/**", max_output_bytes=100)
    host = FakeHost(files={"/small": b"x" * 100, "/big": b"x" * 101})
    executor = fake_executor(host, granted)
    assert (await executor.run(ReadFile(path="/small"))).stdout_bytes == 100
    with pytest.raises(LimitExceeded):
        await executor.run(ReadFile(path="/big"))


async def test_an_answer_that_is_no_json_is_a_protocol_error():
    class FakeGarblingHost(FakeHost):
        async def call(self, operation, args, *, run_as=None):
            return [b"\xff{"]

    for step in (Facts(), Observe(count=1), ReadFile(path="/f"), WriteFile(path="/f", content="x")):
        with pytest.raises(ProtocolError):
            await fake_executor(FakeGarblingHost()).run(step, diff=True)


def test_a_diff_is_bounded_and_says_where_it_was_cut():
    old = b"".join(b"%0100d\n" % n for n in range(2000))
    shown = content_diff("/f", old, b"")
    assert len(shown) <= MAX_DIFF_CHARACTERS + 100
    assert shown.endswith("(diff cut here)\n")


def test_lines_that_are_chosen_to_be_compared_for_long_are_not_compared() -> None:
    before = [b"%d\n" % (number % 120) for number in range(9000)]
    after = [b"%d\n" % (number * 7 % 120) for number in range(9000)]
    assert content_diff("/f", b"".join(before), b"".join(after)) == "(content differs: 9000 -> 9000 lines)\n"
    assert content_diff("/f", b"".join(before), b"".join([*before[:4500], b"x\n", *before[4501:]])).count("\n-") == 1
    assert content_diff("/f", None, b"".join(before)).count("\n+") == 9001


def test_content_of_very_many_lines_is_counted_instead_of_compared():
    shown = content_diff("/f", b"\n" * MAX_DIFF_LINES, b"x\n")
    assert shown == f"(content differs: {MAX_DIFF_LINES} -> 1 lines)\n"


def test_one_very_long_line_is_cut_too():
    assert len(content_diff("/f", b"x" * 1_000_000, b"y" * 1_000_000)) < 200


@pytest.mark.parametrize("odd", [b"\xff\xfe", b"a\0b", b"\x89PNG"])
def test_bytes_that_are_no_text_are_not_shown(odd):
    assert content_diff("/f", odd, b"text") == "(binary content differs)\n"
    assert content_diff("/f", b"text", odd) == "(binary content differs)\n"


def test_a_control_character_in_a_file_does_not_reach_a_terminal():
    assert "\x1b" not in content_diff("/f", b"", b"\x1b]0;title\x07\x1b[31mred\n")


def test_systemctl_answers_with_odd_lines_are_read_all_the_same():
    state = parse_show("MainPID=x\nDescription=a=b\n\ngarbage\nNRestarts=\n", "web")
    assert (state["main_pid"], state["restarts"], state["description"]) == (None, None, "a=b")
    assert state["load_state"] == "not-found"


@pytest.mark.parametrize("code", HINTS)
def test_every_failure_of_the_host_says_what_to_do(code):
    error = as_error(code, "it failed", (), host="web1")
    assert isinstance(error, StepFailed)
    assert error.hint
    assert str(error) == "web1: it failed"


def test_a_denial_of_the_host_names_its_layer_the_need_and_what_was_held():
    error = as_error("denied", "/a leads to /b", ["fs.read:/b", "fs.read:/a"], host="web1")
    assert isinstance(error, CapabilityDenied)
    assert (error.layer, error.needed, error.held) == ("host", "fs.read:/b", ("fs.read:/a",))
    assert "/a leads to /b" in str(error)


def test_a_code_nobody_knows_is_a_protocol_error():
    assert isinstance(as_error("flux", "it fluxed"), ProtocolError)


@pytest.mark.parametrize(
    ("name", "do"), [("ls -l", "its name has a space: give each word by itself"), ("ls", "install it")]
)
def test_a_program_that_is_a_whole_command_line_is_answered_with_what_it_is(name, do):
    error = as_error("not_found", f"no such program: {name}", [f"/usr/bin/{name}", f"/bin/{name}"])
    assert error.hint == f"{do}; looked for /usr/bin/{name}, /bin/{name}"
