"""The same checks through every executor, and under the host's own ceiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.services.doctor import Request, examine
from tests.conftest import require
from tests.parts.ops_agent import OpsAgent
from tests.parts.unix_user import current_user

pytestmark = pytest.mark.anyio

ONLY = ("host", "podman", "container", "auth", "persist", "agent.clock")
SERVICE = ("svc.state", "lint", "backend.manager")


@pytest.fixture(params=["local", "ssh_root", "agent"])
def target(request):
    return request.getfixturevalue(request.param)


async def verdicts(target, name, only):
    async with target.connect() as ex:
        found = await examine(ex, Request(name, only))
    return {(each.id, each.verdict, each.because) for each in found.findings}


async def test_the_host_is_judged_alike_through_every_executor(target, local):
    require("podman", "needs podman (apt-get install podman)")
    assert await verdicts(target, "local-runtime", ONLY) == await verdicts(local, "local-runtime", ONLY)


async def test_a_service_is_judged_alike_through_every_executor(target, local):
    require("systemctl", "needs systemctl (apt-get install systemd)")
    assert await verdicts(target, "systemd-journald", SERVICE) == await verdicts(local, "systemd-journald", SERVICE)


def test_the_hosts_ceiling_decides_what_a_doctor_may_read(tmp_path):
    grants = [{"principal": f"unix:{current_user()}", "capabilities": ["facts:*", "container.read:*"]}]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with OpsAgent(grants) as agent:
        argv = [
            sys.executable,
            "-m",
            "agent",
            "doctor",
            "local-runtime",
            "--host",
            agent.url,
            "-v",
            "--fail-on",
            "unknown",
        ]
        done = subprocess.run(
            [*argv, "--fail-on", "unknown", "--only", "host.platform,podman.binary,persist.cron,backend.manager"],
            env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        denied = [each for each in agent.records() if each.get("decision") == "deny"]
    assert done.returncode == 1, done
    assert "ok    host.platform" in done.stdout
    assert "????  persist.cron" in done.stdout
    assert 'grant "service.read:systemd"' in done.stdout
    assert denied


def test_a_host_nobody_can_reach_is_could_not_run(tmp_path):
    argv = [sys.executable, "-m", "agent", "doctor", "local-runtime", "--host", "ssh://nobody@127.0.0.1:1"]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["doctor", "web", "--only", "nothing.here"], ["doctor", "a\nb"], ["doctor", "--", "-x"],
     ["doctor", "web", "--baseline", "/nowhere"], ["doctor", "web", "--declaration", "/nowhere"],
     ["doctor", "../../etc"]],
    ids=repr,
)  # fmt: skip
def test_a_request_that_is_wrong_is_usage(words, tmp_path):
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "agent", *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
