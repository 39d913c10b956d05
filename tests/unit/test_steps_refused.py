"""What makes no sense, or is no text, is a BadStep, whatever it is: never another error, and never a step."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps import (
    STEP_TYPES,
    Events,
    Exec,
    Facts,
    Link,
    ListTree,
    MoveFile,
    Observe,
    Pull,
    Push,
    ReadFile,
    RemoveFile,
    SandboxRun,
    ScheduleAdd,
    ServiceStatus,
    SetMode,
    Shell,
    Step,
    Tty,
    WriteFile,
    decode_step,
    redact,
)

HUSH = "hush-5f1c"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exec([]),
        lambda: Exec("ls -l"),
        lambda: Exec(["ls", Secret(HUSH)]),  # type: ignore[list-item]  # what must not pass
        lambda: Exec(["ls", 1]),  # type: ignore[list-item]  # what a YAML file may hold
        lambda: Exec(["ls", "a\0b"]),
        lambda: Exec(["bin/ls"]),
        lambda: Exec([""]),
        lambda: Exec(["/bin/echo", "x" * (128 * 1024)]),
        lambda: Exec(["/bin/echo", *["x" * 1000] * 2000]),
        lambda: Exec(["ls"], cwd="relative"),
        lambda: Exec(["ls"], env={"A B": "x"}).requires(),
        lambda: Exec(["ls"], env={"A": "x\0y"}).requires(),
        lambda: Exec(["ls"], env={"OPSEXEC_RUN": "x"}).requires(),
        lambda: Exec(["ls"], run_as="root; id"),
        lambda: Exec(["ls"], run_as="-u"),
        lambda: Exec(["ls"], run_as=""),
        lambda: Exec(["ls"], timeout_s=0),
        lambda: Exec(["ls"], timeout_s=-1),
        lambda: Exec(["ls"], timeout_s=math.nan),
        lambda: Exec(["ls"], timeout_s=math.inf),
        lambda: Shell("two words", "true"),
        lambda: Shell("", "true"),
        lambda: Shell("*", "true"),
        lambda: Shell("a", "tr\0ue"),
        lambda: Shell("a", "x" * (128 * 1024)),
        lambda: Shell("a", "true", sha256="0" * 64),
        lambda: ReadFile(path="relative"),
        lambda: ReadFile(path=""),
        lambda: ReadFile(path="/a", offset=-1),
        lambda: ReadFile(path="/a", max_bytes=0),
        lambda: ReadFile(path="/a", max_bytes=(64 << 20) + 1),
        lambda: ReadFile(path="/a", offset=1 << 63),
        lambda: Exec(["ls", *"x" * 100_001]),
        lambda: Exec(["ls"], env={f"V{number}": "x" for number in range(5001)}),
        lambda: Facts(names=("os",) * 10_001),
        lambda: ListTree(path="/a", excludes=("x",) * 10_001),
        lambda: SandboxRun(name="x", argv=["/bin/true"], links={f"/{number}": "x" for number in range(5001)}),
        lambda: ScheduleAdd(name="x", cron="0 3 * * *", steps=(Exec(["ls", *"x" * 60_000]),) * 2),
        lambda: WriteFile(path="/a"),
        lambda: WriteFile(path="/a", content="x", data=b"x"),
        lambda: WriteFile(path="/a", content="x", mode="644x"),
        lambda: WriteFile(path="/a", content="x", mode="99"),
        lambda: WriteFile(path="/a", content="x", owner="a:b"),
        lambda: RemoveFile(path="/"),
        lambda: MoveFile("/a", "/b/../a"),
        lambda: MoveFile("a", "/b"),
        lambda: RemoveFile(path="/a/.."),
        lambda: Link(path="/a", target=""),
        lambda: Link(path="/a", target="x\0"),
        lambda: SetMode(path="/a"),
        lambda: Push(src="", dest="/a"),
        lambda: Push(src="x", dest="a"),
        lambda: Push(src="x", dest="/a", excludes=("a\nb",)),
        lambda: ServiceStatus(name="--all"),
        lambda: ServiceStatus(name="a b"),
        lambda: ServiceStatus(name="*"),
        lambda: ServiceStatus(name=""),
        lambda: Facts(names=("weather",)),
        lambda: Observe(interval_s=0),
        lambda: Events(interval_s=0),
        lambda: Events(run_as="root"),
        lambda: Events(names=("x",)),
        lambda: Observe(interval_s=math.nan),
        lambda: Tty(argv=()),
        lambda: Tty(argv=("/bin/sh",), columns=0),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_before_anything_is_asked(make):
    with pytest.raises(BadStep):
        make()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_step_or_a_bad_step(data):
    try:
        step = decode_step(data)
    except BadStep:
        return
    assert isinstance(step, Step)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = [
    "argv",
    "path",
    "content",
    "env",
    "mode",
    "name",
    "action",
    "script",
    "names",
    "src",
    "dest",
    "run_as",
    "stdin",
]
TAGS = st.sampled_from([kind.__struct_config__.tag for kind in STEP_TYPES])


@given(TAGS, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_fields_are_a_step_that_can_be_shown_or_a_bad_step(tag, fields):
    data = msgspec.msgpack.encode({**{key: value for key, value in fields.items() if in_range(value)}, "type": tag})
    try:
        step = decode_step(data)
        needs = step.requires()
    except BadStep:
        return
    assert needs or tag == "exec"
    json.dumps(redact(step))


def in_range(value) -> bool:
    """msgpack has no integers over 64 bits."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, list):
        return all(in_range(each) for each in value)
    if isinstance(value, dict):
        return all(in_range(each) for each in value.values())
    return True


LONE = "\ud800"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Exec(["/bin/x", LONE]),
        lambda: Exec(["/bin/x"], stdin=Secret(f"{HUSH}{LONE}")),
        lambda: Exec(["/bin/x"], env={"A": Secret(f"{HUSH}{LONE}")}),
        lambda: Exec(["/bin/x"], cwd=f"/{LONE}"),
        lambda: Shell("act", LONE),
        lambda: ReadFile(path=f"/{LONE}"),
        lambda: WriteFile(path="/a", content=Secret(f"{HUSH}{LONE}")),
        lambda: Link(path="/a", target=LONE),
        lambda: Push(src=LONE, dest="/a"),
        lambda: Pull(src="/a", dest="x", excludes=(LONE,)),
        lambda: Tty(argv=["/bin/sh", LONE]),
    ],
)
def test_text_that_no_byte_stands_for_is_refused_before_it_is_sent(make):
    with pytest.raises(BadStep, match=r"U\+D800") as caught:
        make()
    assert HUSH not in str(caught.value)
    assert caught.value.__context__ is None or HUSH not in repr(caught.value.__cause__)


def test_a_secret_on_a_terminals_argv_is_refused_too():
    with pytest.raises(BadStep, match="every user"):
        Tty(argv=["/bin/sh", Secret(HUSH)])  # type: ignore[list-item]  # what is tested
