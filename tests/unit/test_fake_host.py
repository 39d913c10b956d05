"""The shipped fake host does what a real one does, so that a test which passes on it means something."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsexec.capability import CapabilitySet
from opsexec.errors import (
    AuditUnavailable,
    CapabilityDenied,
    ConnectionLost,
    HostUnsuitable,
    LimitExceeded,
    OpsError,
    ProgramNotFound,
    StepFailed,
    StepTimeout,
)
from opsexec.far.message import FarError
from opsexec.steps import Exec, Facts, Push, ReadFile, ServiceControl, Shell, Tty, WriteFile
from opsexec.testing import Answer, FakeHost, FakeTree, MemoryAudit, NoAnswer, fake_executor
from tests.parts.far_calls import FarCalls

pytestmark = pytest.mark.anyio

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where flushing a file costs nothing, on hosts that have it."""

NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "c/c", "b/b/b", "."])
TARGETS = st.sampled_from(["a", "b", "../a", "a/b", "/ROOT/b", "..", "/ROOT/../x", "c/..", "missing"])
MODES = st.sampled_from(["", "0700", "0755"])
BODIES = st.sampled_from([b"", b"one", b"two"])
FLAG = st.booleans()

CALLS = st.one_of(
    st.tuples(st.just("write"), NAMES, BODIES, MODES, FLAG, FLAG),
    st.tuples(st.just("make_dir"), NAMES, MODES, FLAG, FLAG),
    st.tuples(st.just("link"), NAMES, TARGETS, FLAG),
    st.tuples(st.just("set_mode"), NAMES, st.sampled_from(["0700", "0755"]), FLAG),
    st.tuples(st.just("remove"), NAMES, FLAG, FLAG),
    st.tuples(st.just("move"), NAMES, NAMES, FLAG),
    st.tuples(st.just("read"), NAMES, st.integers(0, 4), st.integers(1, 4)),
    st.tuples(st.just("stat"), NAMES),
)


class _InTree(dict):
    """The operations of a tree in memory under the names that the real ones have."""

    def __init__(self, tree: FakeTree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, name):
        return lambda args: self._tree.call(name, args)


def answer(far: FarCalls, root: str, call):
    """Return what a call answers, with the parts that a tree in memory can't know left out."""
    name, path, *rest = call
    path = f"{root}/{path}"
    rest = [word.replace("/ROOT", root) if isinstance(word, str) else word for word in rest]
    try:
        match name:
            case "write":
                body, mode, parents, check = rest
                said = far.write(path, body, mode, parents=parents, check=check, readers=[f"{root}/**"])
            case "make_dir":
                mode, parents, check = rest
                said = far.make_dir(path, mode, parents=parents, check=check)
            case "stat":
                said = far.stat(path)
                for unknown in ("size", "uid", "gid", "owner", "group", "mtime"):
                    said.pop(unknown, None)
            case "move":
                said = far.move(path, f"{root}/{rest[0]}", check=rest[1])
            case "set_mode":
                said = far.set_mode(path, rest[0], check=rest[1])
            case _:
                said = getattr(far, name)(path, *rest)
    except FarError as error:
        return error.code
    return said


@settings(max_examples=200)
@given(calls=st.lists(CALLS, max_size=25))
def test_the_fake_tree_answers_as_a_real_one_does(calls):
    old = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(dir=MEMORY) as made:
            root = str(Path(made).resolve())
            os.chmod(root, 0o755)
            grants = [f"{root}/**"]
            real = FarCalls(*grants)
            fake = FarCalls(*grants, operations=_InTree(FakeTree(dirs=[root])))
            for call in calls:
                if call[0] == "remove" and call[1] == ".":
                    continue
                assert answer(fake, root, call) == answer(real, root, call), call
    finally:
        os.umask(old)


async def test_what_was_asked_is_listed_in_order():
    host = FakeHost(dirs=["/srv"], answers={"uptime": "up\n"})
    async with fake_executor(host) as executor:
        await executor.run(Exec(["uptime"]))
        await executor.run(WriteFile(path="/srv/f", content="x"))
        await executor.push("./site/", "/srv/site/")
    assert host.calls == [["process", "uptime"], ["write_file", "/srv/f"], ["push", "./site/", "/srv/site/"]]
    assert host.content("/srv/f") == b"x"
    assert host.closed


async def test_a_denied_step_asks_nothing_and_is_recorded():
    host, audit = FakeHost(), MemoryAudit()
    executor = fake_executor(host, CapabilitySet.of("fs.read:/srv/**"), audit=audit)
    with pytest.raises(CapabilityDenied):
        await executor.run(Exec(["/usr/bin/id"]))
    assert host.calls == []
    assert [record["decision"] for record in audit.records] == ["deny"]


async def test_without_an_audit_nothing_runs():
    host = FakeHost(answers={"id": "root\n"})
    executor = fake_executor(host, audit=MemoryAudit(AuditUnavailable("disk full")))
    with pytest.raises(AuditUnavailable):
        await executor.run(Exec(["/usr/bin/id"]))
    assert host.calls == []


async def test_a_program_nobody_scripted_fails_the_test():
    with pytest.raises(NoAnswer, match="scripted: uptime"):
        await fake_executor(FakeHost(answers={"uptime": 0})).run(Exec(["/usr/bin/id"]))


async def test_answers_are_used_up_in_order_and_the_last_one_stays():
    host = FakeHost(answers={"check *": [1, {"exit_code": 2}, "fine\n"]})
    executor = fake_executor(host)
    codes = [(await executor.run_streaming(Exec(["/bin/check", "it"]))).exit_code for _ in range(4)]
    assert codes == [1, 2, 0, 0]


@pytest.mark.parametrize(
    ("pattern", "argv", "matches"),
    [
        ("systemctl show **", ["/usr/bin/systemctl", "show", "-p", "x"], True),
        ("systemctl show **", ["systemctl", "show"], True),
        ("systemctl show **", ["systemctl", "stop"], False),
        ("/usr/bin/systemctl show", ["/bin/systemctl", "show"], False),
        ("systemctl show", ["systemctl", "show", "web"], False),
        ("systemctl * web-*", ["systemctl", "stop", "web-1"], True),
        ("**", ["anything", "at", "all"], True),
        ("say 'two words'", ["say", "two words"], True),
    ],
)
async def test_a_pattern_matches_word_by_word(pattern, argv, matches):
    run = fake_executor(FakeHost(answers={pattern: "yes"})).run_streaming(Exec(argv))
    if matches:
        assert (await run).text == "yes"
    else:
        with pytest.raises(NoAnswer):
            await run


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(missing=True), ProgramNotFound),
        (ConnectionLost("cut", host="fake"), ConnectionLost),
        ({"delay_s": 30}, StepTimeout),
        ({"stdout": "x" * 1001}, LimitExceeded),
        ({"signal": "SIGKILL"}, StepFailed),
        (3, StepFailed),
    ],
)
async def test_a_scripted_failure_is_the_error_a_real_host_raises(answer, error):
    granted = CapabilitySet.of("exec:**", max_output_bytes=1000)
    executor = fake_executor(FakeHost(answers={"job": answer}), granted)
    with pytest.raises(error) as caught:
        await executor.run(Exec(["/usr/bin/job"], timeout_s=0.05))
    assert isinstance(caught.value, OpsError)


async def test_an_operation_can_be_made_to_fail():
    lost = ConnectionLost("cut", host="fake")
    host = FakeHost(files={"/f": "x"}, failures={"read_file": lost, "push": lost})
    executor = fake_executor(host)
    for step in (ReadFile(path="/f"), Push(src="./a", dest="/b")):
        with pytest.raises(ConnectionLost):
            await executor.run(step)


async def test_stdin_is_received_whole_or_streamed():
    async def blocks():
        yield b"one"
        yield b"two"

    host = FakeHost(answers={"cat": ""})
    executor = fake_executor(host)
    await executor.run(Exec(["/usr/bin/cat"], stdin="given"))
    await executor.run(Exec(["/usr/bin/cat"]), stdin=blocks())
    assert host.received == [b"given", b"onetwo"]


async def test_output_passes_the_sink():
    class FakeSink:
        def __init__(self) -> None:
            self.seen: list[tuple[str, bytes]] = []

        async def write(self, stream, data) -> None:
            self.seen.append((stream, data))

    sink = FakeSink()
    executor = fake_executor(FakeHost(answers={"/bin/sh **": {"stdout": "out", "stderr": "err"}}))
    await executor.run(Shell("act", "true"), sink)
    assert sink.seen == [("stdout", b"out"), ("stderr", b"err")]


async def test_a_terminal_says_its_answer_and_remembers_keys():
    executor = fake_executor(FakeHost(answers={"/bin/bash -l": {"stdout": "$ ", "exit_code": 7}}))
    session = await executor.open_tty(Tty(argv=("/bin/bash", "-l")))
    assert await session.read() == b"$ "
    await session.write(b"exit 7\n")
    session.resize(100, 40)
    assert await session.read() == b""
    assert (await session.wait()).exit_code == 7
    await session.aclose()


async def test_facts_and_services_are_scripted():
    host = FakeHost(facts={"os": {"id": "debian"}}, answers={"systemctl **": Answer(missing=True)})
    executor = fake_executor(host)
    assert (await executor.run(Facts(names=("os",)))).value == {"os": {"id": "debian"}}
    with pytest.raises(HostUnsuitable):
        await executor.run(ServiceControl(name="web", action="start"))


@pytest.mark.parametrize("value", [None, 1.5, object()])
def test_an_answer_that_is_none_is_refused_at_once(value):
    with pytest.raises(TypeError, match="is not an answer"):
        FakeHost(answers={"x": value})


@pytest.mark.parametrize(
    ("answers", "says"),
    [({"x": {"exitcode": 1}}, "'exitcode' is no field of an answer"), ({"x": []}, "a list of them"), ({" ": 0}, "' '")],
)
def test_an_answer_that_could_never_be_given_is_refused_at_once(answers, says):
    with pytest.raises(TypeError, match=says):
        FakeHost(answers=answers)
