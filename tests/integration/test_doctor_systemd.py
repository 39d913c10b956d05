"""The doctor on a real service manager: a clean unit, a runaway, and units nobody should trust."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.services.declaration import parse_declaration
from agent.services.doctor import Request, examine
from opsexec import CapabilitySet, LocalExec
from opsexec.testing import MemoryAudit
from tests.conftest import require
from tests.parts import user_systemd as part

pytestmark = pytest.mark.anyio
WEB = 'name = "clean"\nscope = "user"\nenable = true\n'

CLEAN = """
[Unit]
Description=Clean
StartLimitIntervalSec=1h
StartLimitBurst=3
[Service]
ExecStart=/bin/sleep 1000
Restart=on-failure
RestartSec=5
[Install]
WantedBy=default.target
"""

RUNAWAY = """
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'podman run --name x docker.io/library/busybox >> /tmp/node.log; exit 3'
Restart=always
RestartSec=50ms
Environment=API_TOKEN=hush-canary
KillMode=none
Bogus=1
"""


@pytest.fixture(scope="module")
def systemd(tmp_path_factory):
    why = part.missing()
    require(why is None, why or "")
    with part.user_systemd(tmp_path_factory.mktemp("systemd")) as manager:
        yield manager


@pytest.fixture
def look(systemd, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(systemd.runtime_dir))

    async def look(name: str, only: tuple[str, ...] = (), *capabilities: str, declaration: str | None = None):
        held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
        declared = parse_declaration(declaration.encode(), "web.toml") if declaration else None
        async with LocalExec(capabilities=held, audit=MemoryAudit()) as ex:
            found = await examine(ex, Request(name, only, True, declared))
        return {each.id: each for each in found.findings}

    return look


async def test_a_clean_unit_that_runs_passes(systemd, look):
    systemd.unit("clean.service", CLEAN)
    systemd.systemctl("start", "clean.service")
    found = await look("clean", ("svc", "lint"))
    assert {each.id for each in found.values() if each.verdict in ("fail", "unknown")} <= {"svc.perms"}
    assert found["svc.state"].verdict == "pass"
    assert found["lint.restart-unbounded"].summary == "at most 3 starts in 3600 s"
    assert found["lint.unit-syntax"].verdict == "pass"


async def test_a_runaway_is_reported_with_its_count_and_everything_that_is_wrong_with_it(systemd, look):
    systemd.unit("node.service", RUNAWAY)
    systemd.systemctl("start", "--no-block", "node.service")
    end = time.monotonic() + 20
    while int(systemd.systemctl("show", "-P", "NRestarts", "node.service").stdout or 0) < 8:
        assert time.monotonic() < end
    found = await look("node", ("svc", "lint"))
    systemd.systemctl("stop", "node.service")
    for name in (
        "svc.restart-count", "lint.restart-unbounded", "lint.raw-runtime-run", "lint.log-tmp", "lint.remote-image",
        "lint.secrets-in-env", "lint.pull-policy", "lint.unit-syntax",
    ):  # fmt: skip
        assert found[name].verdict == "fail", name
    assert "automatic restarts" in found["svc.restart-count"].summary
    assert "an hour" in found["svc.restart-count"].summary
    assert "hush-canary" not in repr(found)


async def test_a_unit_the_host_does_not_have_fails_once_and_the_rest_is_skipped(systemd, look):
    found = await look("nowhere", ("svc", "lint"))
    assert [each.id for each in found.values() if each.verdict in ("fail", "unknown")] == ["svc.state"]
    assert found["lint.unit-syntax"].because == "svc.state"


async def test_without_a_grant_a_check_is_unknown_and_says_which_grant_it_takes(systemd, look):
    systemd.unit("clean.service", CLEAN)
    found = await look("clean", ("svc.state",), "facts:*", "fs.read:/**", "service.read:systemd")
    assert found["svc.state"].verdict == "unknown"
    assert "service.read:clean.service" in str(found["svc.state"].fix)


async def test_a_limit_in_the_wrong_section_is_named(systemd, look):
    text = "[Service]\nExecStart=/bin/false\nRestart=on-failure\nRestartSec=6\nStartLimitIntervalSec=60\n"
    text += "StartLimitBurst=3\n"
    systemd.unit("stray.service", text)
    found = await look("stray", ("lint.restart-unbounded", "lint.unit-syntax"))
    assert found["lint.restart-unbounded"].verdict == "fail"
    assert "belongs under [Unit]" in found["lint.restart-unbounded"].summary
    assert "Unknown key" in found["lint.unit-syntax"].summary


async def test_a_masked_service_that_is_declared_enabled_fails(systemd, look):
    systemd.unit("clean.service", CLEAN)
    systemd.inside("import subprocess; subprocess.run(['systemctl', '--user', 'disable', 'clean.service'], check=True)")
    found = await look(
        "clean", ("svc.disabled-override",), declaration='name = "clean"\nscope = "user"\nenable = true\n'
    )
    assert found["svc.disabled-override"].verdict == "fail"
    assert found["svc.disabled-override"].fix.argv == ("systemctl", "--user", "enable", "clean.service")


def test_the_command_exits_with_1_for_a_failed_service(systemd, tmp_path):
    systemd.unit("bad.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    systemd.systemctl("start", "bad.service")
    env = {**systemd.env, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-m", "agent", "doctor", "bad", "--user", "--only", "svc.state"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "FAIL  svc.state" in done.stdout) == (1, True), done
