"""The commands that change a host, over SSH: to the sshd of a machine that systemd booted, seen by its systemctl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.machine_sshd import HOST, sshd_there
from tests.parts.service_commands import declare, ops
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)
UNIT = "far.service"
DEFINITION = f"/etc/systemd/system/{UNIT}"
DECLARED = """name = "far"
enable = true
command = ["/bin/sh", "-c", "echo far-is-ready; exec sleep 1000"]
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        declare(booted, "far", DECLARED)
        yield booted


@pytest.fixture(scope="module")
def words(machine: BootedMachine) -> Iterator[list[str]]:
    with sshd_there(machine) as reached:
        yield reached


def test_a_service_lives_its_whole_life_over_ssh(machine: BootedMachine, words: list[str]) -> None:
    """Preflight, install, start, status, logs, restart, quarantine, release, stop, uninstall, as systemctl sees it."""

    def far(command: str, *more: str) -> dict[str, Any]:
        told = ops(machine, command, "far", *more, *words)
        assert told["host"] == HOST, told
        return told

    def seen(*names: str) -> list[str]:
        return [machine.show(UNIT, name) for name in names]

    judged = machine.tried(PROGRAM, "preflight", "far", "--format", "json", *words)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert not [each for each in json.loads(judged.stdout)["findings"] if each["verdict"] == "fail"]

    assert seen("LoadState") == ["not-found"]
    far("install", "--execute")
    assert seen("LoadState", "UnitFileState", "ActiveState") == ["loaded", "enabled", "inactive"]

    far("start", "--execute")
    assert seen("ActiveState") == ["active"]
    pid = machine.show(UNIT, "MainPID")
    status = far("status")["value"]
    assert (status["ActiveState"], str(status["MainPID"])) == ("active", pid)
    eventually_now(lambda: "far-is-ready" in str(far("logs")["notes"]), within_s=20, what="its words are in its log")

    far("restart", "--execute")
    assert seen("ActiveState") == ["active"]
    assert machine.show(UNIT, "MainPID") not in (pid, "0")

    before = machine.run("cat", DEFINITION)
    bundle = far("quarantine", "--execute")["bundle"]
    assert seen("LoadState", "ActiveState") == ["masked", "inactive"]
    assert machine.run("stat", "-c", "%a %U", bundle).split() == ["700", "root"]
    assert machine.status("systemctl", "start", UNIT) != 0
    far("release", "--start", "--execute")
    assert seen("LoadState", "UnitFileState", "ActiveState") == ["loaded", "enabled", "active"]
    assert machine.run("cat", DEFINITION) == before

    far("stop", "--execute")
    assert seen("ActiveState", "MainPID") == ["inactive", "0"]
    far("uninstall", "--execute")
    assert seen("LoadState") == ["not-found"]
    assert machine.status("test", "-e", "/var/lib/ops-agent/services/far") != 0
    logins = machine.run("journalctl", "-u", "ssh", "-o", "cat")
    assert logins.count("Accepted publickey for root from 127.0.0.1") >= 10, logins


def test_a_host_with_another_key_is_not_changed(machine: BootedMachine, words: list[str]) -> None:
    machine.run("sh", "-c", "ssh-keygen -q -t ed25519 -N '' -f /root/other && cp /root/other.pub /root/other-hosts")
    machine.run("sed", "-i", "s/^/127.0.0.1 /", "/root/other-hosts")
    wrong = [*words[:-1], "/root/other-hosts"]
    done = machine.tried(PROGRAM, "install", "far", "--execute", *wrong)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "key" in done.stderr
    assert machine.status("test", "-e", DEFINITION) != 0
