"""LaunchdControl over a `fake_launchctl` that keeps a state: decided before anything is asked for, and seen through."""

from __future__ import annotations

import plistlib
from typing import Any

import pytest

from opsexec import CapabilitySet
from opsexec.errors import BadStep, CapabilityDenied, HostUnsuitable, StepFailed, StepTimeout
from opsexec.steps import LaunchdControl
from opsexec.testing import Answer, FakeHost, FakeNode, fake_executor
from tests.parts.fake_launchctl import FakeLaunchd

pytestmark = pytest.mark.anyio

LABEL, TARGET = "com.example.web", "system/com.example.web"
PATH = f"/Library/LaunchDaemons/{LABEL}.plist"
KEYS: dict[str, Any] = {"Label": LABEL, "Program": "/usr/local/bin/web"}


def mac(**more: Any) -> FakeLaunchd:
    return FakeLaunchd({PATH: plistlib.dumps(KEYS)}, **more)


def step(action: str, target: str = TARGET, path: str | None = None, **more: Any) -> LaunchdControl:
    path = PATH if action == "bootstrap" and path is None else path
    return LaunchdControl(target=target, action=action, path=path, **more)  # type: ignore[arg-type]  # a parameter


def asked(host: FakeHost) -> list[str]:
    """What launchctl was told, but for what only looks."""
    words = [each[2:] for each in host.calls if each[:2] == ["process", "launchctl"]]
    return [" ".join(each) for each in words if each[0] not in ("print", "print-disabled")]


async def test_a_job_is_loaded_started_restarted_ended_and_each_a_second_time_changes_nothing():
    host = mac()
    async with fake_executor(host) as ex:
        for action, state in (
            ("enable", ""), ("bootstrap", "not running"), ("kickstart", "running"), ("bootout", ""), ("disable", "")
        ):  # fmt: skip
            first, again = await ex.run(step(action)), await ex.run(step(action))
            assert (first.changed, again.changed) == (True, False), action
            assert again.value["state"] == state
        assert again.value == {
            "target": TARGET, "loaded": False, "state": "", "pid": None, "runs": None, "path": "", "disabled": True,
        }  # fmt: skip
    assert asked(host) == [
        f"enable {TARGET}", f"bootstrap system {PATH}", f"kickstart {TARGET}", f"bootout {TARGET}",
        f"disable {TARGET}",
    ]  # fmt: skip


async def test_a_restart_ends_and_starts_what_runs():
    host = mac()
    async with fake_executor(host) as ex:
        await ex.run(step("bootstrap"))
        await ex.run(step("kickstart"))
        assert (await ex.run(step("restart"))).value["runs"] == 2
    assert asked(host)[-1] == f"kickstart -k {TARGET}"


async def test_a_bootout_under_way_is_over_when_launchd_no_longer_knows_the_job():
    host = mac(ends_in=4)
    async with fake_executor(host) as ex:
        await ex.run(step("bootstrap"))
        assert (await ex.run(step("bootout"))).value["loaded"] is False
    assert TARGET not in host.jobs


async def test_a_job_that_never_ends_is_a_timeout_and_no_success():
    host = mac(ends_in=10**6)
    async with fake_executor(host) as ex:
        await ex.run(step("bootstrap"))
        with pytest.raises(StepTimeout):
            await ex.run(step("bootout", timeout_s=0.5))


async def test_a_label_that_is_still_taken_is_asked_for_again():
    host = mac(frees_in=2)
    async with fake_executor(host) as ex:
        await ex.run(step("bootstrap"))
        await ex.run(step("bootout"))
        assert (await ex.run(step("bootstrap"))).value["loaded"] is True
    assert asked(host).count(f"bootstrap system {PATH}") == 4


@pytest.mark.parametrize(
    ("keys", "files", "words"),
    [
        ({"Label": "com.example.other"}, {}, "of the job 'com.example.other'"),
        ({}, {PATH: b"\0\1"}, "no property list"),
        ({}, {PATH: plistlib.dumps([1])}, "of the job 'None'"),
        ({}, {PATH: FakeNode("link", target="/tmp/x.plist"), "/tmp/x.plist": plistlib.dumps(KEYS)}, "is a link"),
    ],
    ids=["other-label", "garbage", "no-dict", "link"],
)  # fmt: skip
async def test_a_property_list_of_another_job_is_never_loaded(keys, files, words):
    host = FakeLaunchd({PATH: plistlib.dumps({**KEYS, **keys}), **files})
    async with fake_executor(host) as ex:
        with pytest.raises(StepFailed, match=words):
            await ex.run(step("bootstrap"))
    assert asked(host) == []


async def test_what_launchctl_would_refuse_is_refused_before_it_is_asked_in_check_mode_too():
    host = mac()
    async with fake_executor(host) as ex:
        for check in (True, False):
            for action in ("kickstart", "restart"):
                with pytest.raises(StepFailed, match="isn't loaded"):
                    await ex.run(step(action), check=check)
        await ex.run(step("disable"))
        with pytest.raises(StepFailed, match="disabled"):
            await ex.run(step("bootstrap"), check=True)
        host.disabled["system"][LABEL] = False
        other = "/Library/LaunchDaemons/other.plist"
        host.tree.nodes[other] = FakeNode("file", data=plistlib.dumps(KEYS))
        await ex.run(step("bootstrap", path=other))
        with pytest.raises(StepFailed, match="loaded already, from /Library/LaunchDaemons/other"):
            await ex.run(step("bootstrap"), check=True)


async def test_check_mode_predicts_and_touches_nothing():
    host = mac()
    async with fake_executor(host) as ex:
        predicted = await ex.run(step("bootstrap"), check=True)
        assert (predicted.changed, predicted.value["loaded"]) == (True, False)
    assert asked(host) == []
    assert host.jobs == {}


async def test_a_refusal_that_doesnt_pass_is_told_with_what_it_means(monkeypatch):
    monkeypatch.setattr("opsexec.handlers.launchd.SETTLE_S", 0.2)
    host = mac()
    host.tree.nodes[PATH].mode = 0o666
    async with fake_executor(host) as ex:
        with pytest.raises(StepFailed, match="status 5: an input or output error: mostly the property list's owner"):
            await ex.run(step("bootstrap"))


@pytest.mark.parametrize("status", [112, 125])
async def test_a_login_without_a_session_has_no_domain_and_nothing_is_asked_of_it(status):
    host = mac(says={f"launchctl print gui/501/{LABEL}": Answer(exit_code=status)})
    async with fake_executor(host) as ex:
        with pytest.raises(HostUnsuitable, match="no launchd domain gui/501"):
            await ex.run(step("bootout", f"gui/501/{LABEL}"))
    assert asked(host) == []


@pytest.mark.parametrize("text", ["", "garbage", f"{TARGET} = {{\n", f"{TARGET} = {{\n\tpid = 1\n}}\n"])
async def test_an_answer_nobody_knows_ends_in_an_error_and_no_change(text):
    host = mac(says={f"launchctl print {TARGET}": text})
    async with fake_executor(host) as ex:
        for action in ("bootout", "disable", "kickstart"):
            with pytest.raises(StepFailed, match="format nobody knows"):
                await ex.run(step(action))
    assert asked(host) == []


async def test_a_launchctl_that_hangs_ends_the_step_in_bounded_time(monkeypatch):
    monkeypatch.setattr("opsexec.handlers.launchctl.LOOK_S", 0.1)
    host = mac(says={f"launchctl print {TARGET}": Answer(delay_s=600)})
    async with fake_executor(host) as ex:
        with pytest.raises(StepTimeout):
            await ex.run(step("bootout"))
    assert asked(host) == []


async def test_a_host_without_launchctl_says_so():
    host = FakeHost(answers={"launchctl **": Answer(missing=True)})
    async with fake_executor(host) as ex:
        with pytest.raises(HostUnsuitable, match="no launchctl"):
            await ex.run(step("bootout"))


async def test_a_grant_is_on_domain_and_label_and_on_the_property_list():
    held = CapabilitySet.of(f"service.control:{TARGET}", f"fs.read:{PATH}")
    host = mac(login=501)
    async with fake_executor(host, held) as ex:
        await ex.run(step("bootstrap"))
        for denied in (
            step("bootout", f"gui/501/{LABEL}"), step("bootout", "system/com.example.other"), step("kill"),
            step("bootstrap", path="/Library/LaunchDaemons/other.plist"),
        ):  # fmt: skip
            with pytest.raises(CapabilityDenied):
                await ex.run(denied)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": LABEL, "action": "bootout"},
        {"target": f"login/5/{LABEL}", "action": "bootout"},
        {"target": "system/a/b", "action": "bootout"},
        {"target": "system/../gui/501/a", "action": "bootout"},
        {"target": "system/", "action": "bootout"},
        {"target": "system/a\u202eb", "action": "bootout"},
        {"target": "system/" + "a" * 1001, "action": "bootout"},
        {"target": f"gui/0501/{LABEL}", "action": "bootout"},
        {"target": "system/a\nb", "action": "bootout"},
        {"target": TARGET, "action": "bootout", "path": PATH},
        {"target": TARGET, "action": "bootstrap"},
        {"target": TARGET, "action": "bootstrap", "path": "/tmp/x.plist"},
        {"target": TARGET, "action": "bootstrap", "path": "/Library/LaunchDaemons/../../tmp/x.plist"},
        {"target": TARGET, "action": "bootstrap", "path": "/Library/LaunchAgents/x.plist"},
        {"target": TARGET, "action": "bootstrap", "path": "/Library/LaunchDaemons/x"},
        {"target": f"gui/501/{LABEL}", "action": "bootstrap", "path": PATH},
    ],
)
def test_what_could_mean_another_job_or_another_file_is_no_step(fields):
    with pytest.raises(BadStep):
        LaunchdControl(**fields)
