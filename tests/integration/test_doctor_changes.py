"""Services installed, started, contained and released on a machine that systemd booted, by the command line itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.fake_podman import STATE, fake_podman
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)

CANARY = "hush-canary-4711-planted"
NATIVE = """name = "web"
enable = true
command = ["/bin/sleep", "1000"]
exposure_budget = 3.5
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        fake_podman(booted)
        yield booted


def ops(machine: BootedMachine, *words: str, rc: int | None = 0) -> dict[str, Any]:
    """Run a command of `ops-agent` there, and return its JSON."""
    done = machine._engine.docker("exec", machine.name, PROGRAM, *words, "--json", check=False, within_s=120)
    assert rc is None or done.returncode == rc, (
        f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else {"stderr": done.stderr}


def declare(machine: BootedMachine, name: str, text: str) -> None:
    machine.write(f"/etc/ops-agent/services/{name}.toml", text)


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
    assert machine.run("ls", "/var/lib/ops-agent/services").strip() == ""


RUNAWAY = f"""[Unit]
Description=Node commander
StartLimitIntervalSec=0
[Service]
ExecStart=/nix/store/abcdefgh-node-commander/bin/run
Restart=always
RestartSec=20ms
Environment=API_TOKEN={CANARY} MODE=fast
EnvironmentFile=/etc/node-commander.env
KillMode=process
[Install]
WantedBy=multi-user.target
"""
SCRIPT = f"""#!/bin/sh
export DB_PASSWORD={CANARY}-in-script
echo "token={CANARY} Authorization: Bearer {CANARY}" >> /tmp/node-commander.log
echo "connected to https://admin:{CANARY}@example.com with {CANARY}"
exec podman run --name node-commander -e TOKEN={CANARY} docker.io/library/node:20
"""
CONFIG = json.dumps({
    "auths": {"registry.example.com": {
        "auth": base64.b64encode(f"robot:{CANARY}-auth".encode()).decode(), "identitytoken": f"{CANARY}-identity",
        "registrytoken": f"{CANARY}-registry", "password": f"{CANARY}-password"}},
    "HttpHeaders": {"X-Meta": f"{CANARY}-header"}, "credHelpers": {"gcr.example.com": "gcloud"},
})  # fmt: skip
INSPECT = json.dumps([{
    "Id": "1234", "Name": "node-commander", "State": {"Status": "running"},
    "Config": {"Env": [f"TOKEN={CANARY}", f"PLAIN={CANARY}-env", "PATH=/bin"], "Cmd": ["--password", CANARY],
               "CreateCommand": ["podman", "run", "-e", f"TOKEN={CANARY}"]},
}])  # fmt: skip
PEM = "-----BEGIN RSA PRIVATE KEY-----\\nMIIE" + CANARY + "\\n-----END RSA PRIVATE KEY-----"


def plant_runaway(machine: BootedMachine) -> None:
    """A root-owned unit that runs raw podman from an opaque path, without end, logging into /tmp."""
    machine.run("mkdir", "-p", "/nix/store/abcdefgh-node-commander/bin", "/root/.docker")
    machine.write("/nix/store/abcdefgh-node-commander/bin/run", SCRIPT)
    machine.run("chmod", "755", "/nix/store/abcdefgh-node-commander/bin/run")
    machine.write("/etc/node-commander.env", f"SESSION_SECRET={CANARY}-file\nHARMLESS={CANARY}-harmless\n")
    machine.write("/root/.docker/config.json", CONFIG)
    machine.write(f"{STATE}/inspect.json", INSPECT)
    machine.write(
        f"{STATE}/image.json", json.dumps([{"Id": "sha256:77", "Config": {"Env": [f"SECRET_KEY={CANARY}-image"]}}])
    )
    machine.write(f"{STATE}/logs", f"starting\npassword: {CANARY}\n{PEM}\nbare {CANARY}-identity\n")
    machine.write("/etc/systemd/system/node-commander.service", RUNAWAY)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "node-commander")
    eventually_now(
        lambda: int(machine.show("node-commander.service", "NRestarts")) > 40, within_s=60, what="it runs away"
    )


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
    assert machine.run("ls", f"{STATE}/containers").strip() == ""
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


def test_a_canary_planted_in_every_source_occurs_nowhere_in_the_bundle(machine, contained):
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
