"""The agent is the enemy: whatever it answers, a command ends in a sentence, and nothing of it drives the terminal."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.cli import main as ops_agent
from opsexec import Facts, Inventory, Runbook
from opsexec.cli import main as opsexec
from opsexec.digest import StreamDigest
from opsexec.inventory import InventoryHost
from opsexec.runbook import RunbookStep
from opsexec.wire import ERROR, NOTE, OUT, RESULT, SCREEN, STARTED, Result, encode_result, frame
from tests.parts.fake_agent import FakeAgent, http, raw_result, result

pytestmark = pytest.mark.timeout(60)
ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b5n"
NAN, INFINITY = float("nan"), float("inf")
RUN = "a" * 16
SLOW_S = 5.0


def failed(code: str, **more: object) -> bytes:
    said = {"code": code, "message": ESCAPES, "hint": ESCAPES, **more}
    return http(frame(ERROR, msgspec.msgpack.encode(said)), "403 Forbidden")


def told(line: bytes) -> bytes:
    """A step's whole answer with this line of output."""
    digest = StreamDigest()
    digest.update(line + b"\n")
    whole = Result(run="a", exit_code=0, value={"ok": True}, stdout_bytes=len(line) + 1, digest=str(digest))
    return http(frame(OUT, line + b"\n") + encode_result(whole))


def question(**changes: object) -> dict[str, object]:
    shown = {
        "run": ESCAPES,
        "principal": ESCAPES,
        "listener": ESCAPES,
        "step": {"argv": ESCAPES},
        "begun": 0,
        "until": 9,
    }
    return {"questions": [shown | changes]}


def deep(levels: int) -> list[object]:
    found: list[object] = []
    for _ in range(levels):
        found = [found]
    return found


A_RUN = {"run": ESCAPES, "principal": ESCAPES, "state": ESCAPES, "begun": 1e308, "step": {"type": ESCAPES, "argv": [1]}}
A_TERMINAL = {"run": RUN, "principal": ESCAPES, "title": ESCAPES, "begun": NAN, "bytes": 10**18, "live": True}
A_SCHEDULE = {"name": ESCAPES, "owner": 1, "steps": [{"type": 1, "argv": 5}], "last": {"at": None}, "next": [1]}
ME = {"principal": ESCAPES, "host": ESCAPES, "listener": ESCAPES}

VALUES: dict[str, object] = {
    "nothing": None,
    "a number": 1,
    "a list": [],
    "an empty object": {},
    "deep": {"runs": deep(900)},
    "runs with escapes": {"runs": [A_RUN]},
    "runs that are none": {"runs": [{"run": 1, "begun": NAN, "step": [1], "principal": {}}]},
    "terminals": {"terminals": [A_TERMINAL]},
    "terminals that are none": {"terminals": [A_RUN]},
    "schedules": {"schedules": [A_SCHEDULE, {}]},
    "questions": question(),
    "a question without a time": question(until=NAN),
    "a question without an end": question(until=INFINITY, begun=-INFINITY),
    "somebody": ME | {"grants": [{"capabilities": [ESCAPES], "run_as": [ESCAPES]}]},
    "somebody with odd grants": ME | {"grants": [1]},
    "links": {"links": [{"bytes": -1, "link": -1, "head": "zz", "final": 1}]},
    "a status": {"status": 10**18},
    "a report": {"ok": True, "problem": ESCAPES, "signed": ESCAPES, "records": -5},
    "bytes": {"ok": b"\xff"},
    "no number": {"ok": [NAN]},
    "names that are none": {"ok": {1: 2, b"x": 3}},
    "a moment": {"ok": msgspec.msgpack.Ext(-1, bytes(4))},
    "another kind": {"ok": msgspec.msgpack.Ext(5, b"abc")},
}

ANSWERS: dict[str, bytes] = (
    {name: result(value) for name, value in VALUES.items()}
    | {
        "a signal": result({}, exit_code=None, signal=ESCAPES),
        "an odd status": raw_result({"run": "a", "exit_code": 2**60}),
        "both ends": raw_result({"run": "a", "exit_code": 0, "signal": "TERM"}),
        "another digest": result({}, digest=ESCAPES),
        "fewer bytes than none": result({}, stdout_bytes=-1),
        "no duration": result({}, duration_s=NAN),
        "skipped": result({}, skipped=ESCAPES, diff=ESCAPES, changed=True),
        "a result that is a list": raw_result([1, 2]),
        "a result that is very deep": http(frame(RESULT, b"\x91" * 3000 + b"\x01")),
        "a made-up error": failed(ESCAPES),
        "a denial": failed("denied", needed=ESCAPES, held=[ESCAPES], layer=ESCAPES, reason=ESCAPES),
        "a rejected host key": failed("host_key"),
        "an error that is none": http(frame(ERROR, b"\xff")),
        "started": http(frame(STARTED, b"\xff" * 100)),
        "a note and no end": http(frame(NOTE, ESCAPES.encode()) + frame(SCREEN, b"\0\0\0\0")),
        "a malformed screen": http(frame(SCREEN, b"x")),
        "notes": http(
            frame(NOTE, ESCAPES.encode()) * 5 + encode_result(Result(run="a", exit_code=0, value={"status": 3}))
        ),
        "output that was not made": http(frame(OUT, b"{}\n[\n\xff") + encode_result(Result(run="a", exit_code=0))),
        **{f"a record {levels} deep": told(b'{"step":' * levels + b"1" + b"}" * levels) for levels in (100, 900, 9000)},
        **{
            f"a log that begins at {offset!r}": http(
                frame(OUT, b"x") + encode_result(Result(run="a", exit_code=0)), offset=offset
            )
            for offset in ("x", "-1", "", "9" * 5000, "0x3")
        },
        "two ends": http(encode_result(Result(run="a", exit_code=0)) * 2),
        "half a frame": http(frame(OUT, b"12345678")[:7]),
        "nothing at all": b"",
        "noise": os.urandom(500),
        "a head without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000,
        "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 10,
    }
    | {
        f"refused: {code}": failed(code)
        for code in ("usage", "limit", "audit", "timeout", "privilege", "consent", "output")
    }
)

OPSEXEC = [
    ["exec", "URL", "--", "true"],
    ["exec", "URL", "--json", "--", "true"],
    *(["runs", word, "URL"] for word in ("list",)),
    *(["runs", word, "URL", RUN] for word in ("show", "attach", "kill")),
    ["runs", "list", "URL", "--json"],
    ["schedule", "list", "URL"],
    *(["schedule", word, "URL", "a"] for word in ("show", "run", "remove")),
    ["tty", "URL", "--list"],
    ["tty", "URL", "--watch", RUN],
    ["replay", "URL", RUN, "--verify"],
    ["audit", "verify", "URL"],
    ["audit", "tail", "URL"],
    ["audit", "show", RUN, "URL"],
    ["facts", "URL"],
    ["observe", "URL", "--count", "1"],
]
OPS_AGENT = [
    ["whoami", "URL"],
    ["whoami", "--json", "URL"],
    ["consent", "--url", "URL"],
    ["consent", "--json", "--url", "URL"],
    *([word, RUN, "--url", "URL"] for word in ("approve", "deny", "end", "watch")),
]
COMMANDS = [(opsexec, "opsexec", words) for words in OPSEXEC] + [(ops_agent, "ops-agent", words) for words in OPS_AGENT]


@pytest.fixture(scope="module")
def hostile() -> Iterator[FakeAgent]:
    with tempfile.TemporaryDirectory() as directory, FakeAgent(Path(directory) / "socket").serving() as running:
        yield running


@pytest.mark.parametrize(
    ("command", "name", "words"), COMMANDS, ids=lambda each: " ".join(each) if isinstance(each, list) else ""
)
def test_no_answer_breaks_a_command_or_reaches_the_terminal_raw(
    hostile: FakeAgent,
    command: object,
    name: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert callable(command)
    argv = [f"agent+unix://{hostile.path}" if word == "URL" else word for word in words]
    for what, says in ANSWERS.items():
        hostile.says = says
        asked = len(hostile.asked)
        began = time.monotonic()
        code = command(argv)
        took = time.monotonic() - began
        out, err = capfd.readouterr()
        assert len(hostile.asked) > asked, (what, err)
        assert code in (0, 1, 3) or "refused" in what or code == 2, (what, code)
        assert "internal error" not in err, (what, err)
        assert "Traceback" not in err, (what, err)
        assert not set(out + err) & set("\x1b\x07\x9b"), (what, out, err)
        assert took < SLOW_S, (what, took)
        if code:
            assert f"{name}: " in err or out, (what, code, err)


@pytest.mark.anyio
@pytest.mark.parametrize("what", sorted(ANSWERS))
async def test_no_answer_of_one_host_ends_a_run_for_the_others(
    hostile: FakeAgent, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    hostile.says = ANSWERS[what]
    hosts = [InventoryHost(name="hostile", url=f"agent+unix://{hostile.path}"), InventoryHost(name="own", url="local:")]
    report = await Runbook(name="t", hosts="all", steps=[RunbookStep(Facts(names=("kernel",)), register="found")]).run(
        Inventory(hosts)
    )
    assert report.hosts["own"].status == "ok"
    assert set(report.hosts) == {"own", "hostile"}
