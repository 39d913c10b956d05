"""How the doctor runs: root causes collapse, hostile answers end in bounded time, nothing unreadable ever passes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest

from agent.services import report
from agent.services.check import Check, checks
from agent.services.declaration import Declaration
from agent.services.doctor import ROOTS, Request, examine, select, with_causes
from agent.services.engine import Engine
from agent.services.finding import Finding, Ruling, passed
from agent.services.look import Look
from agent.services.probe import Probe, Unreadable
from opsexec import CapabilitySet
from opsexec.errors import HostUnreachable, UsageError
from opsexec.testing import Answer, FakeHost, fake_executor

pytestmark = pytest.mark.anyio

FACTS = {
    "kernel": {"system": "Linux", "machine": "x86_64", "uptime_s": 1000.0},
    "os": {"id": "debian", "version": "12", "name": "Debian 12"},
    "user": {"name": "root", "uid": 0, "home": "/root", "runtime_dir": None},
    "tools": {"podman": "/usr/bin/podman"},
    "disks": [],
}
SHOW = """LoadState=loaded
ActiveState=active
SubState=running
NRestarts=0
FragmentPath=/etc/systemd/system/web.service
"""
UNIT = "[Unit]\nDescription=Web\n[Service]\nExecStart=/usr/bin/web\nRestart=no\n"
PODMAN = '{"Client":{"Version":"4.9.0"}}'
DECLARED = Declaration.model_validate(
    {"name": "web", "runtime": "podman", "image": "localhost/web:1", "container_name": "web",
     "podman": {"require_machine": True, "connection": "m"}}
)  # fmt: skip


ANSWERS = {
    "systemctl --no-pager --no-ask-password is-system-running": "running\n",
    "systemctl --no-pager --no-ask-password show **": SHOW,
    "systemd-analyze verify **": "",
    "systemd-analyze security **": "[]",
    "journalctl **": "",
    "podman version --format json": PODMAN,
    "podman machine list --format json": '[{"Name":"m","Running":true,"Default":true}]',
    "podman system connection list --format json": '[{"Name":"m","URI":"unix:///run/p.sock"}]',
    "podman **": "[]",
}


def host(changed=None, files=None):
    found = {"/etc/systemd/system/web.service": UNIT, "/etc/passwd": "", **(files or {})}
    return FakeHost(
        files=found,
        answers={**(changed or {}), **{k: v for k, v in ANSWERS.items() if k not in (changed or {})}},
        facts=FACTS,
    )


async def look(fake, name="web", only=(), declaration=None):
    async with fake_executor(fake) as ex:
        found = await examine(ex, Request(name, tuple(only), False, declaration))
    return {each.id: each for each in found.findings}


async def test_a_stopped_machine_is_one_failure_and_what_depends_on_it_is_skipped_because_of_it():
    stopped = {"podman machine list --format json": '[{"Name":"m","Running":false,"Default":true}]'}
    found = await look(host(stopped), only=["podman", "image.present", "container"], declaration=DECLARED)
    assert [each.id for each in found.values() if each.verdict in ("fail", "unknown")] == ["podman.machine-running"]
    assert {each.because for each in found.values() if each.verdict == "skip"} == {"podman.machine-running"}
    assert found["podman.machine-running"].fix.argv == ("podman", "machine", "start", "m")


HOSTILE = {
    "hangs": Answer(delay_s=600),
    "dies": Answer(signal="SIGSEGV"),
    "says garbage": Answer(stdout=b"\xff\xfe{[garbage\x1b[2J"),
    "says nothing": Answer(),
    "says null": Answer(stdout=b"null"),
    "says deep JSON": Answer(stdout=b"[" * 100_000),
    "says other JSON": Answer(stdout=b'{"Client":{"Version":{"a":1}}}'),
    "says lists of lists": Answer(stdout=b"[[1],[2]]"),
    "ends with 125": Answer(exit_code=125, stderr=b"Error: \x1b]0;owned\x07 cannot connect"),
    "says too much": Answer(stdout=b"x" * (5 << 20)),
    "is missing": Answer(missing=True),
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_podman_that_misbehaves_is_never_a_pass_and_never_takes_long(how, monkeypatch):
    from opsexec.steps import questions

    for name, question in list(questions.QUESTIONS.items()):
        monkeypatch.setitem(questions.QUESTIONS, name, question._replace(timeout_s=0.2))
    begun = time.monotonic()
    found = await look(
        host({"podman **": HOSTILE[how]}), only=["podman", "image.present", "container"], declaration=DECLARED
    )
    assert time.monotonic() - begun < 5
    assert [each.id for each in found.values() if each.verdict == "pass"] == ["podman.binary"]
    assert any(each.verdict in ("fail", "unknown") for each in found.values())
    text = report.human("web", list(found.values()), verbose=True)
    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize("how", [each for each in HOSTILE if each not in ("says garbage",)])
async def test_a_systemctl_that_misbehaves_is_never_a_pass(how, monkeypatch):
    from opsexec.steps import questions

    for name, question in list(questions.QUESTIONS.items()):
        monkeypatch.setitem(questions.QUESTIONS, name, question._replace(timeout_s=0.2))
    found = await look(
        host({"systemctl **": HOSTILE[how]}), only=["backend", "svc.state", "svc.restart-count", "svc.stale"]
    )
    assert [each.id for each in found.values() if each.verdict == "pass"] == []


LOADED = ["lint", "svc.perms", "svc.duplicate"]


@pytest.mark.parametrize(
    "content",
    [b"\0\1\2\3" * 1000, b"\x7fELF" + b"\0" * 100, b"[Service]\nExecStart=" + b"a" * (2 << 20), b"", b"\xff\xfe\n",
     b"no section\n", b"[Unit\nx=1\n", b"[Service]\nExecStart=\x1b[2Jx\nRestart=always\n"],
    ids=["nul", "elf", "huge", "empty", "bytes", "no section", "open", "escape"],
)  # fmt: skip
async def test_a_unit_that_is_none_fails_or_is_unknown_and_is_shown_without_escapes(content):
    found = await look(host(files={"/etc/systemd/system/web.service": content}), only=LOADED)
    assert b"\x1b" in content or any(each.verdict in ("fail", "unknown") for each in found.values())
    assert "\x1b" not in report.human("web", list(found.values()), verbose=True)


async def test_a_host_that_can_not_be_reached_ends_the_run():
    fake = host()
    fake._failures["facts"] = HostUnreachable("no route", host="web")
    with pytest.raises(HostUnreachable):
        await look(fake)


async def test_what_is_not_granted_is_unknown():
    async with fake_executor(host(), CapabilitySet.of("facts:*", "service.read:*")) as ex:
        found = await examine(ex, Request("local-runtime", ("podman.version", "persist.cron")))
    verdicts = {each.id: each.verdict for each in found.findings}
    assert verdicts["podman.version"] == "unknown"
    assert verdicts["persist.cron"] == "unknown"


async def test_a_waived_finding_says_so_and_does_not_fail():
    declared = Declaration.model_validate({"name": "web", "waive": {"lint.killmode": "it forks on purpose"}})
    unit = UNIT + "KillMode=process\n"
    found = await look(
        host(files={"/etc/systemd/system/web.service": unit}), only=["lint.killmode"], declaration=declared
    )
    assert found["lint.killmode"].verdict == "info"
    assert "it forks on purpose" in found["lint.killmode"].summary


async def test_a_question_is_put_once_however_many_checks_ask_it():
    fake = host()
    await look(fake, declaration=DECLARED)
    asked = [tuple(call) for call in fake.calls if call[:2] == ["process", "podman"]]
    assert len(asked) == len(set(asked))


def test_what_a_check_waits_for_exists_and_never_waits_for_it():
    every = {each.id: each for each in checks()}
    for each in every.values():
        seen, pending = set(), list(each.after)
        while pending:
            name = pending.pop()
            assert name in every
            assert name != each.id
            if name not in seen:
                seen.add(name)
                pending += every[name].after
    assert not set(ROOTS) & {each.id for each in every.values() if set(ROOTS) & set(each.after)} - {"svc.state"}


def test_an_unknown_check_is_a_usage_error_that_names_the_nearest():
    with pytest.raises(UsageError) as error:
        select(checks(), ["svc.stat"])
    assert error.value.hint == "did you mean svc.state?"


def test_a_chosen_check_brings_its_causes():
    chosen = select(checks(), ["image.present"])
    ids = [each.id for each in with_causes(chosen, checks())]
    assert {"podman.binary", "podman.socket", "image.present"} <= set(ids)


def found(verdict: str) -> Finding:
    return Finding(id="svc.state", subject="service:web", verdict=verdict, severity="high", summary="it \x1b[1mis\nso")  # type: ignore[arg-type]  # a parameter


@pytest.mark.parametrize("verdict", ["pass", "info", "warn", "fail", "skip", "unknown"])
def test_every_verdict_is_a_valid_sarif_result(verdict):
    log = json.loads(report.as_sarif("web1", [found(verdict)], checks(("svc",)), "1"))
    (result,) = log["runs"][0]["results"]
    assert log["version"] == "2.1.0"
    assert result["level"] in ("none", "note", "warning", "error")
    assert result["kind"] == "fail" or result["level"] == "none"
    assert log["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "svc.state"
    assert list(result["partialFingerprints"]) == ["idAndSubject/v1"]


def test_a_name_from_the_host_can_not_steer_a_terminal_or_add_a_line():
    text = report.human("h\x1b[2J", [found("fail")], verbose=False)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_json_lines_are_one_finding_each():
    lines = report.as_ndjson("web1", [found("fail"), found("pass")]).splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["fail", "pass"]


@pytest.mark.parametrize(("rc", "verdict"), [(0, "pass"), (125, "fail"), (126, "fail"), (127, "fail"), (3, "unknown")])
async def test_the_runtime_is_tried_only_when_it_is_asked_for_and_by_an_exec_grant(rc, verdict):
    trial = {"podman run --rm --network=none --pull=never localhost/web:1 true": rc}
    declared = Declaration.model_validate({"name": "web", "runtime": "podman", "image": "localhost/web:1"})
    found = await look(host(trial), only=["runtime.canary"], declaration=declared)
    assert found["runtime.canary"].verdict == verdict
    fake = host(trial)
    assert "runtime.canary" not in await look(fake, declaration=declared)
    assert not [call for call in fake.calls if "run" in call[2:3]]
    held = CapabilitySet.of("facts:*", "service.*:*", "container.*:*", "image.*:*", "fs.read:/**")
    async with fake_executor(host(trial), held) as ex:
        denied = await examine(ex, Request("web", ("runtime.canary",), declaration=declared))
    assert [each.verdict for each in denied.findings if each.id == "runtime.canary"] == ["unknown"]


def test_help_loads_nothing_that_takes_long():
    slow = "{'pydantic', 'msgspec', 'asyncssh', 'aiohttp'}"
    code = f"import sys; from agent.cli import _parser; _parser(); print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == ""


async def test_without_a_manager_and_without_a_definition_the_manager_is_the_one_cause():
    offline = {"systemctl **": Answer(exit_code=1, stderr=b"System has not been booted with systemd")}
    fake = FakeHost(files={"/etc/passwd": ""}, answers={**offline, "podman **": "[]"}, facts=FACTS)
    found = await look(fake, only=["svc", "lint.log-tmp", "lint.wrapper"])
    assert [each.id for each in found.values() if each.verdict in ("fail", "unknown")] == ["backend.manager"]
    assert found["lint.log-tmp"].because == "backend.manager"


async def test_who_waits_for_an_answer_is_not_cancelled_with_who_asked_for_it():
    async with fake_executor(host()) as ex:
        probe = Probe(ex)
        begun = asyncio.Event()

        async def never() -> None:
            begun.set()
            await asyncio.Event().wait()

        asker = asyncio.create_task(probe.memo("it", never))
        await begun.wait()
        waiter = asyncio.create_task(probe.memo("it", never))
        await asyncio.sleep(0)
        asker.cancel()
        with pytest.raises(Unreadable):
            await waiter
        assert asker.cancelled() or asker.cancelling()


async def test_a_check_that_takes_too_long_is_unknown_and_so_are_those_that_wait_for_it():
    async def slow(look: Look) -> Ruling:
        await look.probe.memo("it", asyncio.Event().wait)
        return passed("never")

    async with fake_executor(host()) as ex:
        look = Look(Probe(ex))
        both = [Check(f"svc.{name}", "host", slow, "it", "it", "low") for name in ("one", "two")]
        found = await Engine(look, "host", timeout_s=0.1).run(both)
    assert [each.verdict for each in found] == ["unknown", "unknown"]
