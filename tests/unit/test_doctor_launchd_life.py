"""The life of a service on launchd, a login's too, over a stand-in that keeps a state. Never on a mac."""

from __future__ import annotations

import plistlib
from typing import Any

import pytest

from agent.services import control, install
from agent.services.declaration import Declaration
from agent.services.doctor import Request
from agent.services.manager import UNTESTED
from agent.services.quarantine import quarantine
from agent.services.release import release
from opsexec.testing import FakeNode, fake_executor
from tests.parts.fake_launchctl import FakeLaunchd

pytestmark = pytest.mark.anyio

PROGRAM = {"/usr/local/bin/web": FakeNode("file", mode=0o755, data=b"\x7fELF")}
SYSTEM: tuple[str, str, dict[str, int]] = ("/Library/LaunchDaemons", "system", {})
LOGIN: tuple[str, str, dict[str, int]] = ("/Users/me/Library/LaunchAgents", "user/501", {"login": 501})


def request(**declared: Any) -> Request:
    fields: dict[str, Any] = {"name": "web", "enable": True, "command": ["/usr/local/bin/web"], **declared}
    return Request("web", (), fields.get("scope") == "user", Declaration.model_validate(fields))


def told(host: FakeLaunchd) -> list[str]:
    words = [each[2:] for each in host.calls if each[:2] == ["process", "launchctl"]]
    return [" ".join(each) for each in words if each[0] not in ("print", "print-disabled", "managername")]


@pytest.mark.parametrize(("units", "domain", "how"), [SYSTEM, LOGIN], ids=["system", "login"])
async def test_the_whole_life_of_a_service_in_its_own_domain(units, domain, how):
    host = FakeLaunchd(dict(PROGRAM), ends_in=2, frees_in=1, **how)
    wanted = request(scope="user" if how else "system", lifecycle={"run_at_load": True})
    target, path = f"{domain}/org.ops-agent.web", f"{units}/org.ops-agent.web.plist"
    said: list[str] = []
    async with fake_executor(host) as ex:
        assert (await install.install(ex, wanted, execute=True, say=said.append)).ok
        assert plistlib.loads(host.tree.nodes[path].data)["Label"] == "org.ops-agent.web"
        assert host.jobs == {}, "an install starts nothing"
        assert (await control.start(ex, wanted, execute=True, say=said.append)).ok
        assert host.jobs[target].runs == 1
        assert (await control.start(ex, wanted, execute=True, again=True, say=said.append)).ok
        assert (await quarantine(ex, wanted, execute=True, say=said.append)).ok
        assert path not in host.tree.nodes
        assert (await release(ex, wanted, execute=True, start=False, say=said.append)).ok
        assert host.jobs[target].state == "running"
        assert (await control.stop(ex, wanted, execute=True, say=said.append)).ok
        assert target not in host.jobs
        assert (await control.uninstall(ex, wanted, execute=True, say=said.append)).ok
    assert path not in host.tree.nodes
    assert said.count(UNTESTED) == 7, "each command that changes something says so"
    assert {each.split()[1] for each in told(host)} <= {target, domain}


async def test_a_quarantine_is_released_also_when_the_clock_was_put_back_since_an_earlier_one(monkeypatch):
    host = FakeLaunchd(dict(PROGRAM), ends_in=2, frees_in=1)
    path = "/Library/LaunchDaemons/org.ops-agent.web.plist"
    async with fake_executor(host) as ex:
        assert (await install.install(ex, request(), execute=True)).ok
        for year in (2030, 2026, 2026):
            monkeypatch.setattr("agent.services.quarantine.now", lambda year=year: f"{year}-01-01T00:00:00.000Z")
            assert (await quarantine(ex, request(), execute=True, say=print)).ok
            assert path not in host.tree.nodes
            assert (await release(ex, request(), execute=True, start=False, say=print)).ok
            assert path in host.tree.nodes


async def test_a_runtime_that_is_down_leaves_it_staged_and_nothing_is_told_to_launchd():
    host = FakeLaunchd(dict(PROGRAM))
    async with fake_executor(host) as ex:
        outcome = await install.install(ex, request(runtime="podman", image="localhost/web:1"), execute=True)
    assert not outcome.ok
    assert "nothing was installed" in outcome.notes
    assert [each for each in host.tree.nodes if each.startswith("/Library/LaunchDaemons")] == []
    assert any("/staged/" in each for each in host.tree.nodes)
    assert told(host) == []


async def test_what_a_restart_needs_is_done_once_where_the_job_was_not_loaded():
    host = FakeLaunchd(dict(PROGRAM))
    async with fake_executor(host) as ex:
        await install.install(ex, request(), execute=True)
        outcome = await control.start(ex, request(), execute=False, again=True)
        assert [each.id for each in outcome.plan] == ["bootstrap", "kickstart"]
        assert UNTESTED in outcome.notes
    assert host.jobs == {}


async def test_status_list_and_logs_tell_of_a_job_in_a_units_terms():
    host = FakeLaunchd(dict(PROGRAM))
    async with fake_executor(host) as ex:
        await install.install(ex, request(), execute=True)
        await control.start(ex, request(), execute=True)
        host.tree.nodes["/Library/Logs/web/out.log"] = FakeNode("file", data=b"hello\npassword=hush-canary\n")
        status = await control.status(ex, request())
        assert (status.ok, status.value["unit"], status.value["NRestarts"]) == (True, "org.ops-agent.web", "1")
        assert status.value["FragmentPath"] == "/Library/LaunchDaemons/org.ops-agent.web.plist"
        logs = await control.logs(ex, request(), lines=10)
        assert "hello" in logs.notes
        assert "canary" not in "".join(logs.notes)
        (row,) = (await control.list_services(ex, user=False, run_as=None)).value
        assert (row["active"], row["load"], row["enabled"]) == ("active", "loaded", "enabled")
