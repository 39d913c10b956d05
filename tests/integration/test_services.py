"""Service steps against a real systemd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsexec import CapabilitySet, LocalExec
from opsexec.errors import HostUnsuitable, StepFailed
from opsexec.steps import ServiceControl, ServiceStatus
from opsexec.testing import MemoryAudit
from tests.conftest import require
from tests.parts import user_systemd as part

pytestmark = pytest.mark.anyio

WEB = """
[Unit]
Description=The web
[Service]
ExecStart=/bin/sleep 1000
ExecReload=/bin/true
[Install]
WantedBy=default.target
"""

BROKEN = """
[Service]
Type=oneshot
ExecStart=/bin/false
"""


@pytest.fixture(scope="module")
def systemd(tmp_path_factory):
    why = part.missing()
    require(why is None, why or "")
    with part.user_systemd(tmp_path_factory.mktemp("systemd")) as manager:
        yield manager


@pytest.fixture
def web(systemd):
    systemd.unit("web.service", WEB)
    systemd.unit("broken.service", BROKEN)
    systemd.systemctl("stop", "web.service")
    return systemd


@pytest.fixture
def executor(web, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(web.runtime_dir))
    return LocalExec(capabilities=CapabilitySet.of("service.*:*"), audit=MemoryAudit())


def control(action: str, name: str = "web") -> ServiceControl:
    return ServiceControl(name=name, action=action, user=True)  # type: ignore[arg-type]  # the action is a parameter


async def test_a_service_is_started_once_and_stopped_once(executor):
    async with executor as ex:
        first = await ex.run(control("start"), diff=True)
        assert first.changed
        assert first.value["active_state"] == "active"
        assert "active_state inactive -> active" in first.diff
        assert (await ex.run(control("start"))).changed is False
        state = (await ex.run(ServiceStatus(name="web", user=True))).value
        assert (state["description"], state["main_pid"]) == ("The web", first.value["main_pid"])
        assert Path(f"/proc/{state['main_pid']}").exists()
        assert (await ex.run(control("stop"))).changed
        assert (await ex.run(control("stop"))).changed is False
    assert not Path(f"/proc/{state['main_pid']}").exists()


async def test_a_restart_makes_a_new_process_and_a_reload_does_not(executor):
    async with executor as ex:
        first = (await ex.run(control("start"))).value["main_pid"]
        assert (await ex.run(control("reload"))).value["main_pid"] == first
        again = await ex.run(control("restart"))
        assert again.changed
        assert again.value["main_pid"] not in (0, first)


ENABLING = """
import asyncio
from opsexec import CapabilitySet, LocalExec
from opsexec.steps import ServiceControl
from opsexec.testing import MemoryAudit

async def main():
    async with LocalExec(capabilities=CapabilitySet.of("service.control:web"), audit=MemoryAudit()) as ex:
        for action in ("enable", "enable", "disable", "disable"):
            output = await ex.run(ServiceControl(name="web", action=action, user=True))
            print(action, output.changed, output.value["unit_file_state"])

asyncio.run(main())
"""


def test_a_service_is_enabled_once_and_disabled_once(web):
    assert web.inside(ENABLING).splitlines() == [
        "enable True enabled",
        "enable False enabled",
        "disable True disabled",
        "disable False disabled",
    ]


@pytest.mark.parametrize("action", ["start", "restart", "enable"])
async def test_check_mode_changes_nothing(executor, web, action):
    async with executor as ex:
        before = (await ex.run(ServiceStatus(name="web", user=True))).value
        assert (await ex.run(control(action), check=True)).changed
        assert (await ex.run(ServiceStatus(name="web", user=True))).value == before


async def test_what_systemctl_refuses_is_a_failure_that_says_why(executor):
    async with executor as ex:
        with pytest.raises(StepFailed, match=r"broken\.service") as caught:
            await ex.run(control("start", "broken"))
        assert caught.value.output is not None
        for action in ("start", "restart", "reload", "enable"):
            with pytest.raises(StepFailed, match="there is no service nosuch"):
                await ex.run(control(action, "nosuch"))
        with pytest.raises(StepFailed, match="can't reload"):
            await ex.run(control("reload"))
        assert (await ex.run(control("stop", "nosuch"))).changed is False


async def test_a_unit_that_does_not_exist_is_an_answer(executor):
    async with executor as ex:
        value = (await ex.run(ServiceStatus(name="nosuch", user=True))).value
    assert value["load_state"] == "not-found"
    assert json.dumps(value)


async def test_a_manager_that_does_not_answer_is_named(executor, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with executor as ex:
        with pytest.raises(HostUnsuitable, match="no service manager answers"):
            await ex.run(ServiceStatus(name="web", user=True))
