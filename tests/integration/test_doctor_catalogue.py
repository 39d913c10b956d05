"""Checks of the catalogue on a machine that systemd booted, with its own podman: as they pass and as they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.integration.test_doctor_machine import CLEAN, doctor, install
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import BootedMachine
from tests.parts.machine_podman import CONNECTION, SOCKET
from tests.parts.service_commands import BOXED, NATIVE, declare, ops

pytestmark = pytest.mark.timeout(240)
IMAGE = "localhost/web:1"


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        booted.podman.load(IMAGE)
        yield booted


def verdicts(machine: BootedMachine, name: str, *ids: str, words: tuple[str, ...] = ()) -> dict[str, str]:
    """Return each check's verdict."""
    found = doctor(machine, name, "--only", ",".join(ids), *words)
    return {id: found[id]["verdict"] for id in ids}


def test_an_installed_service_passes_and_what_was_changed_or_left_behind_since_is_told(machine):
    old = "/etc/systemd/system/old-web.service"
    declare(machine, "web", f'{NATIVE}legacy = ["{old}"]\n[health]\ntype = "command"\ncommand = ["/bin/true"]\n')
    ops(machine, "install", "web", "--execute")
    ops(machine, "start", "web", "--execute")
    ids = ("svc.drift", "svc.legacy", "svc.scope", "svc.bootstrap-error", "lint.uninstall", "lint.exposure",
           "lint.shell-c", "deps.health", "svc.duplicate")  # fmt: skip
    assert verdicts(machine, "web", *ids) == dict.fromkeys(ids, "pass")
    machine.write(old, CLEAN)
    machine.run("sh", "-c", "echo '# mine' >>/etc/systemd/system/web.service; systemctl daemon-reload")
    wrong = verdicts(machine, "web", "svc.drift", "svc.legacy")
    assert wrong == {"svc.drift": "warn", "svc.legacy": "fail"}
    machine.run("rm", old)


def test_a_unit_that_is_open_wide_hidden_and_started_by_a_shell_is_told(machine):
    install(machine, "wide", "[Service]\nExecStart=/bin/sh -c 'exec sleep 1000'\n")
    machine.run("sh", "-c", "mkdir -p /run/systemd/system; cp /etc/systemd/system/wide.service /run/systemd/system/")
    machine.run("systemctl", "daemon-reload")
    health = '[health]\ntype = "command"\ncommand = ["/bin/false"]\n'
    declare(machine, "wide", f'name = "wide"\nruntime = "systemd"\nexposure_budget = 3.5\n{health}')
    ids = ("lint.exposure", "lint.shell-c", "svc.duplicate", "deps.health")
    assert verdicts(machine, "wide", *ids) == {
        "lint.exposure": "warn", "lint.shell-c": "warn", "svc.duplicate": "fail", "deps.health": "warn",
    }  # fmt: skip
    declare(machine, "wide", 'name = "wide"\nscope = "user"\nruntime = "systemd"\n')
    assert verdicts(machine, "wide", "svc.scope") == {"svc.scope": "fail"}


def test_a_start_that_the_manager_gave_up_is_told(machine):
    install(machine, "late", "[Service]\nType=notify\nTimeoutStartSec=1\nExecStart=/bin/sleep 100\n")
    machine.run("systemctl", "start", "late", check=False)
    found = doctor(machine, "late", "--only", "svc.bootstrap-error")["svc.bootstrap-error"]
    assert (found["verdict"], "timeout" in found["summary"]) == ("fail", True)


def test_a_users_service_needs_a_manager_that_stays(machine):
    machine.run("useradd", "-m", "eve")
    uid = machine.run("id", "-u", "eve").strip()

    def lingers() -> str:
        return verdicts(machine, "mine", "backend.linger", words=("--user", "--as", "eve"))["backend.linger"]

    machine.run("systemctl", "start", f"user@{uid}")  # no login of hers, and no lingering
    assert lingers() == "warn"
    machine.run("loginctl", "enable-linger", "eve")
    assert lingers() == "pass"


@pytest.mark.parametrize(
    ("make", "verdict"),
    [("install -m 600 /dev/null $F; echo '{\"auths\":{}}' >$F", "pass"), ("true", "fail"), ("mkdir $F", "fail"),
     ("echo '{\"auths\":{}}' >$F; chmod 644 $F", "fail"), ("install -m 600 /dev/null $F; echo '{}}' >$F", "fail"),
     ("install -m 600 /dev/null $F; echo '{\"auths\":{\"r.example\":{\"auth\":\"YTpi\"}}}' >$F", "fail")],
    ids=["empty", "missing", "directory", "open", "no JSON", "with credentials"],
)  # fmt: skip
def test_an_authfile_is_empty_and_closed_or_fails(machine, make, verdict):
    path = "/root/authfile.json"
    machine.run("sh", "-c", f"F={path}; rm -rf $F; {make}")
    declare(machine, "boxed", f'{BOXED}[auth]\nmode = "empty-authfile"\nauthfile = "{path}"\n')
    found = verdicts(machine, "boxed", "auth.authfile")
    assert found["auth.authfile"] == verdict or (verdict, found["auth.authfile"]) == ("fail", "unknown")


@pytest.mark.parametrize(
    ("make", "path", "verdict"),
    [("install -d /var/log/apps", "/var/log/apps/a.log", "pass"), ("true", "/var/log/none/a.log", "fail"),
     ("touch /var/log/a-file", "/var/log/a-file/a.log", "fail"), ("true", "/tmp/a.log", "fail"),
     ("install -d /var/log/huge; truncate -s 2G /var/log/huge/a.log", "/var/log/huge/a.log", "warn")],
    ids=["there", "missing", "a file", "in /tmp", "never rotated"],
)  # fmt: skip
def test_a_log_has_a_directory_that_is_fit_for_it(machine, make, path, verdict):
    machine.run("sh", "-c", make)
    declare(machine, "logging", f'name = "logging"\ncommand = ["/bin/sleep", "1"]\n[logs]\napp = "{path}"\n')
    assert verdicts(machine, "logging", "logs.dir") == {"logs.dir": verdict}


def test_an_image_that_was_replaced_and_a_container_that_is_unhealthy_are_told(machine):
    declare(machine, "boxed", BOXED)
    ops(machine, "install", "boxed", "--execute")
    assert verdicts(machine, "boxed", "image.provenance", "runtime.canary") == {
        "image.provenance": "pass", "runtime.canary": "pass"
    }  # fmt: skip
    label = "ops-agent.service=boxed"
    sick = ("--health-cmd", "exit 1", "--health-retries", "1", "--health-interval", "disable")
    machine.podman("run", "-d", "--name", "boxed", "--label", label, *sick, IMAGE, "/bin/sleep", "1000")
    machine.podman("healthcheck", "run", "boxed", check=False)
    machine.podman.load(IMAGE, settings=("ENV NEW=1",))
    found: dict[str, Any] = verdicts(machine, "boxed", "image.provenance", "container.health", "container.name-free")
    assert found == {"image.provenance": "warn", "container.health": "warn", "container.name-free": "pass"}
    machine.podman("rm", "-f", "-t", "0", "boxed")
    machine.podman("rmi", "-f", IMAGE)
    assert verdicts(machine, "boxed", "image.present", "runtime.canary") == {
        "image.present": "fail", "runtime.canary": "skip"
    }  # fmt: skip
    machine.podman.load(IMAGE)
    ops(machine, "uninstall", "boxed", "--execute")


def test_a_connection_leads_somewhere_or_fails(machine):
    def named(connection: str) -> dict[str, str]:
        declare(machine, "linked", f'{BOXED.replace("boxed", "linked")}[podman]\nconnection = "{connection}"\n')
        return verdicts(machine, "linked", "podman.connection", "podman.socket", "image.present")

    dependents = ("podman.socket", "image.present")
    assert named(CONNECTION) == dict.fromkeys(("podman.connection", *dependents), "pass")
    assert named("nowhere") == {"podman.connection": "fail", **dict.fromkeys(dependents, "skip")}
    words = ("--identity", "/root/no-such-key", "keyless", f"ssh://root@127.0.0.1:1{SOCKET}")
    machine.podman("system", "connection", "add", *words, check=False)
    assert named("keyless") == {"podman.connection": "fail", **dict.fromkeys(dependents, "skip")}
