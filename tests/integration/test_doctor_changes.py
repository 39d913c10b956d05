"""Services installed, started, contained and released on a machine that systemd booted, by the command line itself."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.machine_podman import CONNECTION, SOCKET
from tests.parts.runaway import IMAGE, RUNAWAY, plant_runaway
from tests.parts.service_commands import BOXED, CANARY, NATIVE, agent_there, declare, ops
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)


FAILING = """name = "fails"
enable = true
command = ["/usr/local/bin/fails", "/var/lib/starts-bounded"]
"""
LINKED = BOXED.replace("boxed", "linked") + f'[podman]\nconnection = "{CONNECTION}"\n'
WRONG_SECTION = """[Service]
ExecStart=/usr/local/bin/fails /var/lib/starts-unbounded
Restart=on-failure
RestartSec=6
StartLimitIntervalSec=1h
StartLimitBurst=3
"""
WATCHED_S = 120


@pytest.fixture(scope="module")
def engine() -> Iterator[docker_engine.DockerEngine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as running:
        yield running


@pytest.fixture(scope="module")
def machine(engine: docker_engine.DockerEngine) -> Iterator[BootedMachine]:
    with booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        booted.podman.load("localhost/web:1", IMAGE, settings=(f"ENV SECRET_KEY={CANARY}-image",))
        yield booted


@pytest.fixture(scope="module")
def quiet(engine: docker_engine.DockerEngine) -> Iterator[BootedMachine]:
    """A machine that nobody reloads: each daemon-reload lets systemd forget how often it has started something."""
    with booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services")
        yield booted


@pytest.fixture(scope="module", autouse=True)
def failing_since(quiet: BootedMachine) -> float:
    """Two services that always fail, started before everything else, so that others run while they are watched."""
    machine = quiet
    machine.write("/usr/local/bin/fails", '#!/bin/sh\necho start >> "$1"\nexit 1\n')
    machine.run("chmod", "755", "/usr/local/bin/fails")
    declare(machine, "fails", FAILING)
    machine.write("/etc/systemd/system/wrong-section.service", WRONG_SECTION)
    machine.run("systemctl", "daemon-reload")
    ops(machine, "install", "fails", "--execute")
    ops(machine, "start", "fails", "--execute", rc=None)
    machine.run("systemctl", "start", "wrong-section", check=False)
    return time.monotonic()


RUNS_AWAY = """[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/false
Restart=always
RestartSec=0
"""


def test_a_declared_service_is_staged_installed_started_and_taken_away(machine):
    declare(machine, "web", NATIVE)
    assert ops(machine, "install", "web")["executed"] is False
    assert machine.status("test", "-e", "/etc/systemd/system/web.service") != 0
    staged = ops(machine, "stage", "web", "--execute")
    assert staged["notes"] == ["preflight: passed"]
    assert machine.status("test", "-e", "/etc/systemd/system/web.service") != 0
    ops(machine, "install", "web", "--execute")
    assert machine.show("web.service", "UnitFileState") == "enabled"
    assert machine.show("web.service", "ActiveState") == "inactive"
    ops(machine, "start", "web", "--execute")
    assert machine.show("web.service", "ActiveState") == "active"
    findings = json.loads(machine.run(PROGRAM, "doctor", "web", "--format", "json", check=False))["findings"]
    wrong = [each for each in findings if each["verdict"] in ("fail", "warn", "unknown")]
    assert [each for each in wrong if each["id"] != "podman.version"] == []  # of the host, not of the service
    assert machine.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/web.service") == ""
    again = ops(machine, "install", "web", "--execute")
    assert [each["id"] for each in again["done"] if each.get("changed")] in (["receipt", "reload"], ["reload"])
    ops(machine, "uninstall", "web", "--execute")
    assert machine.show("web.service", "LoadState") == "not-found"
    assert "web" not in machine.run("ls", "/var/lib/ops-agent/services").split()


def tree(machine: BootedMachine) -> str:
    """Everything that a second run could change, with its digests."""
    return machine.run(
        "sh", "-c", "find /etc/systemd /var/lib/ops-agent -type f -exec sha256sum {} + -o -type l -print | sort"
    )


@pytest.fixture(scope="module")
def contained(machine: BootedMachine) -> dict[str, Any]:
    plant_runaway(machine)
    plan = ops(machine, "quarantine", "node-commander")
    assert machine.show("node-commander.service", "LoadState") == "loaded"  # a plan changes nothing
    assert [each["id"] for each in plan["plan"]] == [
        "stop", "remove-container.node-commander", "disable", "move-definition", "reload", "mask", "reset-failed",
    ]  # fmt: skip
    assert machine.status("test", "-e", "/var/lib/ops-agent/quarantine") != 0
    return ops(machine, "quarantine", "node-commander", "--execute")


def test_one_command_contains_a_runaway(machine, contained):
    unit = "node-commander.service"
    assert [machine.show(unit, name) for name in ("LoadState", "ActiveState", "NRestarts")] == [
        "masked",
        "inactive",
        "0",
    ]
    assert machine.status("systemctl", "start", unit) != 0
    assert machine.podman.containers() == {}
    (removal,) = [each for each in contained["done"] if each["id"] == "remove-container.node-commander"]
    assert (removal["argv"], removal["rc"]) == (["podman", "rm", "-f", "-t", "0", "node-commander"], 0)
    assert machine.run("readlink", f"/etc/systemd/system/{unit}").strip() == "/dev/null"


def test_evidence_comes_before_any_mutation(machine, contained):
    steps = contained["done"]
    kinds = ["capture" if each["id"].startswith("capture.") else "change" for each in steps]
    assert kinds == sorted(kinds)
    first_change = next(each for each in steps if each["id"] == "stop")
    assert all(each["started_at"] <= first_change["started_at"] for each in steps if each["id"].startswith("capture."))
    captured = {each["id"].partition(".")[2].partition(".")[0] for each in steps if each.get("file")}
    assert {"service", "definition", "script", "environment", "journal", "log", "podman", "image", "auth", "doctor",
            "remediation"} <= captured  # fmt: skip


def test_the_bundle_explains_it_and_only_its_owner_may_read_it(machine, contained):
    bundle = contained["bundle"]
    modes = machine.run("sh", "-c", f"stat -c %a {bundle} {bundle}/* | sort -u").split()
    assert modes == ["600", "700"]
    manifest = json.loads(machine.run("cat", f"{bundle}/manifest.json"))
    assert manifest["state"] == "contained"
    for each in manifest["files"]:
        assert machine.run("sha256sum", f"{bundle}/{each['path']}").split()[0] == each["sha256"]
    text = machine.run("cat", f"{bundle}/remediation.md")
    for id in (
        "lint.restart-unbounded",
        "lint.raw-runtime-run",
        "lint.opaque-nix",
        "lint.log-tmp",
        "lint.remote-image",
    ):
        assert f"**{id}** (" in text, id
    assert "ops-agent release node-commander --execute" in text


def test_the_bundle_holds_what_podman_said_of_its_container_image_and_log(machine, contained):
    bundle = contained["bundle"]
    (container,) = json.loads(machine.run("cat", f"{bundle}/container-node-commander.json"))
    assert (container["Name"], container["State"]["Status"]) == ("node-commander", "running")
    (image,) = json.loads(machine.run("cat", f"{bundle}/image-0.json"))
    assert IMAGE in image["RepoTags"]
    said = machine.run("cat", f"{bundle}/container-node-commander.log")
    assert re.search(r" starting\n\S+ password: \*+\n", said), said


def test_acceptance_5_a_canary_planted_in_every_source_occurs_nowhere_in_the_bundle(machine, contained):
    bundle = contained["bundle"]
    auth = base64.b64encode(f"robot:{CANARY}-auth".encode()).decode()
    for needle in (CANARY, auth, base64.b64encode(CANARY.encode()).decode()[4:20]):
        assert machine.status("grep", "-r", needle, bundle) == 1, machine.run(
            "grep", "-rn", needle, bundle, check=False
        )
    counts = [each["redactions"] for each in contained["done"] if each.get("redactions")]
    assert {kind for each in counts for kind in each} == {"structure", "shape", "value"}
    config = machine.run("sh", "-c", f"cat {bundle}/auth.*config.json")
    assert "registry.example.com" in config
    assert '"gcloud"' in config


def test_a_second_quarantine_changes_nothing(machine, contained):
    before = tree(machine)
    again = ops(machine, "quarantine", "node-commander", "--execute")
    assert again["done"] == []
    assert tree(machine) == before


def test_release_restores(machine, contained):
    assert ops(machine, "release", "node-commander")["executed"] is False
    assert machine.show("node-commander.service", "LoadState") == "masked"
    ops(machine, "release", "node-commander", "--execute")
    unit = "node-commander.service"
    assert machine.run("cat", f"/etc/systemd/system/{unit}") == RUNAWAY
    assert machine.run("stat", "-c", "%a %U", f"/etc/systemd/system/{unit}").strip() == "644 root"
    assert [machine.show(unit, name) for name in ("LoadState", "UnitFileState", "ActiveState")] == [
        "loaded",
        "enabled",
        "inactive",
    ]
    assert machine.status("test", "-e", "/var/lib/ops-agent/services/node-commander/held") != 0
    before = tree(machine)
    assert ops(machine, "release", "node-commander", "--execute")["done"] == []
    assert tree(machine) == before


def not_installed(machine: BootedMachine, name: str, told: dict[str, Any], cause: str) -> None:
    """One failure, what waits for it says so, and nothing that would start by itself stands anywhere."""
    failures = [each for each in told["findings"] if each["verdict"] in ("fail", "unknown")]
    assert [each["id"] for each in failures] == [cause]
    waiting = [each for each in told["findings"] if each.get("because") == cause]
    assert {"image.present", "container.name-free"} <= {each["id"] for each in waiting}
    assert machine.status("test", "-e", f"/etc/systemd/system/{name}.service") != 0
    assert machine.run("sh", "-c", f"ls /etc/systemd/system/*.wants | grep -c {name}", check=False).strip() == "0"
    assert machine.status("test", "-e", f"/var/lib/ops-agent/services/{name}/staged/{name}.service") == 0


def test_acceptance_1_a_podman_that_does_not_work_is_one_failure_and_nothing_is_installed(machine):
    declare(machine, "boxed", BOXED)
    with machine.podman.broken():
        not_installed(machine, "boxed", ops(machine, "install", "boxed", "--execute", rc=1), "podman.version")


@pytest.mark.parametrize("socket", ["refuses", "is missing"])
def test_acceptance_1_a_podman_service_that_is_stopped_is_one_failure_at_its_socket(machine, socket):
    declare(machine, "linked", LINKED)
    with machine.podman.stopped():
        if socket == "is missing":
            machine.run("rm", SOCKET)
        told = ops(machine, "install", "linked", "--execute", rc=1)
    not_installed(machine, "linked", told, "podman.socket")


def test_a_service_behind_a_connection_runs_once_its_podman_answers(machine):
    declare(machine, "linked", LINKED)
    ops(machine, "install", "linked", "--execute")
    ops(machine, "start", "linked", "--execute")
    machine.podman.become(linked="running")
    ops(machine, "uninstall", "linked", "--execute")
    assert machine.podman.containers() == {}


def test_a_runtime_that_is_down_means_skipped_not_failed_and_started_again(machine):
    declare(machine, "boxed", BOXED)
    ops(machine, "install", "boxed", "--execute")
    with machine.podman.broken():
        machine.run("systemctl", "start", "boxed", check=False)
        state = [machine.show("boxed.service", name) for name in ("ActiveState", "Result", "NRestarts")]
        assert state == ["inactive", "exec-condition", "0"]
    ops(machine, "start", "boxed", "--execute")
    machine.podman.become(boxed="running")
    command = machine.podman.inspect("boxed")["Config"]["CreateCommand"]
    assert "--pull=never" in command
    assert any(word.startswith("--authfile=/var/lib/ops-agent/services/boxed/auth/") for word in command)
    found = json.loads(machine.run(PROGRAM, "doctor", "boxed", "--format", "json", check=False))["findings"]
    wrong = {each["id"] for each in found if each["verdict"] in ("fail", "unknown")}
    assert wrong == set(), [each for each in found if each["id"] in wrong]
    ops(machine, "stop", "boxed", "--execute")
    assert machine.podman.containers() == {}
    assert machine.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/boxed.service") == ""
    ops(machine, "uninstall", "boxed", "--execute")


def test_a_definition_of_somebody_else_is_not_overwritten(machine):
    declare(machine, "theirs", NATIVE.replace("web", "theirs"))
    machine.write("/etc/systemd/system/theirs.service", "[Service]\nExecStart=/bin/sleep 5\n")
    told = ops(machine, "install", "theirs", "--execute", rc=1)
    assert [each["id"] for each in told["findings"] if each.get("blocks_preflight")] == ["svc.conflict"]
    assert "sleep 5" in machine.run("cat", "/etc/systemd/system/theirs.service")


def test_what_was_changed_since_the_install_stays_when_it_is_uninstalled(machine):
    declare(machine, "edited", NATIVE.replace("web", "edited"))
    ops(machine, "install", "edited", "--execute")
    machine.run("sh", "-c", "echo '# mine' >> /etc/systemd/system/edited.service")
    told = ops(machine, "uninstall", "edited", "--execute", rc=1)
    assert told["notes"] == ["/etc/systemd/system/edited.service stays: it is not as it was installed"]
    assert machine.status("test", "-e", "/etc/systemd/system/edited.service") == 0


def test_the_hosts_ceiling_decides_what_is_installed_through_its_agent(machine):
    declare(machine, "web", NATIVE)
    reading = ["facts:*", "observe:load", "service.read:*", "container.read:*", "image.read:*", "fs.read:/**"]
    staging = ["fs.write:/var/lib/ops-agent/services/web/**"]
    installing = ["fs.write:/etc/systemd/system/web.service", "fs.write:/etc/systemd/system",
                  "fs.write:/usr/local/libexec/ops-agent/web", "fs.write:/usr/local/libexec/ops-agent",
                  "fs.write:/var/lib/ops-agent/services/web", "service.install:web.service",
                  "service.control:web.service"]  # fmt: skip
    held = reading + staging + ["fs.write:/var/lib/ops-agent/services/web"]
    with agent_there(machine, held) as host:
        told = ops(machine, "install", "web", "--execute", "--host", host, rc=1)
        assert "preflight: passed" in told["notes"]
        assert "needs fs.write:/usr/local/libexec/ops-agent" in told["notes"][-1]
        assert machine.show("web.service", "LoadState") == "not-found"
    with agent_there(machine, held + installing) as host:
        ops(machine, "install", "web", "--execute", "--host", host)
        ops(machine, "start", "web", "--execute", "--host", host)
        assert machine.show("web.service", "ActiveState") == "active"
        told = ops(machine, "quarantine", "web", "--execute", "--host", host, rc=None)
        assert "quarantine" in told["stderr"]  # nobody may write evidence, so nothing is touched
        assert machine.show("web.service", "ActiveState") == "active"
    ops(machine, "uninstall", "web", "--execute")


def test_acceptance_6_a_runaway_is_reported_with_its_count_and_rate(machine):
    machine.write("/etc/systemd/system/runs-away.service", RUNS_AWAY)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "runs-away")
    try:
        eventually_now(
            lambda: int(machine.show("runs-away.service", "NRestarts")) >= 2000, within_s=100, what="it ran away"
        )
        told = json.loads(
            machine.run(PROGRAM, "doctor", "runs-away", "--only", "svc.restart-count", "--format", "json", check=False)
        )
        (finding,) = [each for each in told["findings"] if each["id"] == "svc.restart-count"]
        assert finding["verdict"] == "fail"
        assert int(re.findall(r"\d+", finding["summary"].replace(",", ""))[0]) >= 2000
        assert "an hour" in finding["summary"] or "/h" in finding["summary"], finding["summary"]
    finally:
        machine.run("systemctl", "stop", "runs-away")


def test_a_users_service_is_installed_contained_and_released_by_its_user(machine: BootedMachine) -> None:
    machine.run("useradd", "-m", "bob")
    machine.run("loginctl", "enable-linger", "bob")
    eventually_now(
        lambda: machine.status("test", "-S", "/run/user/1000/systemd/private") == 0, within_s=30, what="bob's manager"
    )
    machine.run("mkdir", "-p", "/home/bob/.config/ops-agent/services", user="bob")
    machine.write("/home/bob/.config/ops-agent/services/mine.toml", NATIVE.replace("web", "mine") + 'scope = "user"\n')
    machine.run("sh", "-c", "chown bob: /home/bob/.config/ops-agent/services/mine.toml")

    def show(name: str) -> str:
        words = ("systemctl", "--user", "show", "-P", name, "mine.service")
        return machine.run("env", "XDG_RUNTIME_DIR=/run/user/1000", *words, user="bob").strip()

    def bob(*words: str) -> str:
        return machine.run(PROGRAM, *words, "mine", "--user", "--execute", user="bob", within_s=120)

    bob("install")
    bob("start")
    assert [show(name) for name in ("UnitFileState", "ActiveState")] == ["enabled", "active"]
    bob("quarantine")
    assert [show(name) for name in ("LoadState", "ActiveState")] == ["masked", "inactive"]
    assert machine.status("test", "-d", "/home/bob/.local/state/ops-agent/quarantine/mine") == 0
    bob("release", "--start")
    assert [show(name) for name in ("UnitFileState", "ActiveState")] == ["enabled", "active"]
    for command in ("quarantine", "release"):  # and by root, as him
        machine.run(PROGRAM, command, "mine", "--user", "--as", "bob", "--execute")
    assert machine.run("stat", "-c", "%U", "/home/bob/.config/systemd/user/mine.service").strip() == "bob"
    bob("uninstall")
    assert show("LoadState") == "not-found"
    assert machine.status("test", "-e", "/home/bob/.local/libexec/ops-agent/mine") != 0


@pytest.mark.slow
def test_a_service_that_always_fails_is_started_so_often_and_no_more(quiet, failing_since):
    left = WATCHED_S - (time.monotonic() - failing_since)
    if left > 0:
        time.sleep(left)  # what is proven is that nothing happens
    assert len(quiet.run("cat", "/var/lib/starts-bounded").split()) == 3
    assert quiet.show("fails.service", "Result") in ("start-limit-hit", "exit-code")
    # Limits under [Service] are ignored: this one was started all the time, which is what the count above is worth.
    assert len(quiet.run("cat", "/var/lib/starts-unbounded").split()) > 12
