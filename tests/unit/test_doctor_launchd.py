"""launchctl's words as recorded, and a `fake_launchctl` host that says them. Nothing here was seen on a real mac."""

from __future__ import annotations

import plistlib

import pytest

from agent.services.declaration import Declaration
from agent.services.doctor import Request, examine
from opsexec.handlers.launchctl import parse_disabled, parse_print
from opsexec.testing import Answer, FakeHost, fake_executor

pytestmark = pytest.mark.anyio

NAME = "com.example.web"
PRINT = """system/com.example.web = {
\tactive count = 1
\tpath = /Library/LaunchDaemons/com.example.web.plist
\tstate = running

\tprogram = /usr/local/bin/web
\targuments = {
\t\t/usr/local/bin/web
\t\tstate = not running
\t}

\tenvironment = {
\t\tXPC_SERVICE_NAME => com.example.web
\t}
\tminimum runtime = 10
\truns = 3
\tpid = 4711
\tlast exit code = 78: EX_CONFIG
}
"""
FACTS = {
    "kernel": {"system": "Darwin", "machine": "arm64"},
    "os": {},
    "user": {"name": "root", "uid": 0, "home": "/var/root", "runtime_dir": None},
    "tools": {},
    "disks": [],
}
JOB = {"Label": NAME, "Program": "/usr/local/bin/web", "KeepAlive": True}


def fake_launchctl(**changed) -> FakeHost:
    answers = {
        "podman **": Answer(missing=True),
        "launchctl managername": "System\n",
        "launchctl print-disabled system": 'disabled services = {\n\t"com.example.web" => disabled\n}\n',
        "launchctl print system/com.example.web": PRINT,
    }
    files = {f"/Library/LaunchDaemons/{NAME}.plist": plistlib.dumps(JOB)}
    return FakeHost(files=files, answers={**answers, **changed}, facts=FACTS)


async def look(host, only=("svc", "lint", "backend"), **declared):
    declaration = Declaration.model_validate({"name": NAME, **declared}) if declared else None
    async with fake_executor(host) as ex:
        found = await examine(ex, Request(NAME, only, declaration=declaration))
    return {each.id: each for each in found.findings}


def test_only_the_outermost_keys_count():
    found = parse_print(PRINT)
    assert found is not None
    assert (found["state"], found["runs"], found["last exit code"]) == ("running", "3", "78: EX_CONFIG")


@pytest.mark.parametrize("text", ["", "garbage", PRINT[:100], "x = {\n" * 500, "{\n}\n"])
def test_an_unknown_format_is_none(text):
    assert parse_print(text) is None


def test_the_override_database_is_read_in_both_ways_it_was_written():
    assert parse_disabled('x = {\n "a" => true\n "b" => disabled\n "c" => false\n "d" => enabled\n e\n}') == {
        "a": True, "b": True, "c": False, "d": False,
    }  # fmt: skip


async def test_a_job_is_judged_by_what_launchctl_prints():
    found = await look(fake_launchctl(), enable=True)
    assert found["backend.manager"].verdict == "pass"
    assert found["svc.state"].verdict == "pass"
    assert found["svc.last-exit"].summary == "it ended with 78: EX_CONFIG"
    assert found["svc.disabled-override"].verdict == "fail"
    assert found["lint.restart-unbounded"].verdict == "fail"
    assert found["lint.plist-syntax"].verdict == "pass"
    assert found["lint.unit-syntax"].verdict == "skip"


async def test_a_runaway_job_is_told_with_its_starts():
    many = PRINT.replace("runs = 3", "runs = 4711").replace("state = running", "state = spawn scheduled", 1)
    found = await look(fake_launchctl(**{"launchctl print system/com.example.web": many}))
    assert found["svc.restart-count"].verdict == "fail"
    assert "4711 starts" in found["svc.restart-count"].summary


async def test_a_job_that_is_not_loaded_fails_once():
    gone = Answer(exit_code=113, stderr=b'Could not find service "com.example.web" in domain for system')
    found = await look(fake_launchctl(**{"launchctl print system/com.example.web": gone}), ("svc",))
    assert [each.id for each in found.values() if each.verdict in ("fail", "unknown")] == ["svc.state"]


@pytest.mark.parametrize(
    "answer", [Answer(), Answer(stdout=b"\xff{"), Answer(exit_code=1), Answer(missing=True), "x = {\n}\n"]
)
async def test_what_launchctl_never_said_before_is_unknown(answer):
    found = await look(
        fake_launchctl(**{"launchctl print system/com.example.web": answer}), ("svc.state", "svc.restart-count")
    )
    assert {found["svc.state"].verdict, found["svc.restart-count"].verdict} <= {"unknown", "skip"}
    assert found["svc.state"].verdict == "unknown"
