"""The doctor on a machine that systemd booted: its own manager, its own units, what starts by itself there."""

from __future__ import annotations

import json

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)
CLEAN = """[Unit]
Description=Clean
StartLimitIntervalSec=1h
StartLimitBurst=3
[Service]
ExecStart=/usr/bin/sleep 1000
Restart=on-failure
RestartSec=5
[Install]
WantedBy=multi-user.target
"""
RUNAWAY = """[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'echo again; exit 3'
Restart=always
RestartSec=100ms
"""
SLOW = """[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'sleep 3; exit 3'
Restart=always
RestartSec=100ms
"""


@pytest.fixture(scope="module")
def machine():
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        yield booted


def doctor(machine: BootedMachine, *words: str) -> dict[str, dict]:
    """Run it there, as root; returns the findings by id."""
    text = machine.run(PROGRAM, "doctor", *words, "--format", "json", check=False)
    assert "Traceback" not in text
    return {each["id"]: each for each in json.loads(text[text.index("{") :])["findings"]}


def install(machine: BootedMachine, name: str, text: str) -> None:
    machine.write(f"/etc/systemd/system/{name}.service", text)
    machine.run("systemctl", "daemon-reload")


def restarts(machine: BootedMachine, name: str, least: int) -> None:
    eventually_now(
        lambda: int(machine.show(name, "NRestarts") or 0) >= least, within_s=60, what=f"{least} restarts of {name}"
    )


def test_the_machines_manager_and_its_clean_unit_pass(machine):
    install(machine, "clean", CLEAN)
    machine.run("systemctl", "enable", "--now", "clean")
    found = doctor(machine, "clean", "--only", "backend,svc,lint")
    assert found["backend.manager"]["verdict"] in ("pass", "warn")
    assert [each for each in found.values() if each["verdict"] in ("fail", "unknown")] == []
    assert found["svc.state"]["verdict"] == "pass"
    assert found["svc.perms"]["verdict"] == "pass"
    assert found["lint.restart-unbounded"]["summary"] == "at most 3 starts in 3600 s"


SOMEBODY, DAEMON = "12345", "daemon"


@pytest.mark.parametrize(
    ("account", "owner", "linked", "verdict"),
    [
        ("root", SOMEBODY, False, "fail"),
        (DAEMON, SOMEBODY, False, "fail"),
        (DAEMON, DAEMON, False, "pass"),
        (None, SOMEBODY, True, "fail"),
    ],
)
def test_a_program_that_somebody_else_may_change_fails_whoever_it_runs_as(machine, account, owner, linked, verdict):
    home = f"/home/of-{owner}"
    machine.run("install", "-d", "-o", owner, home)
    machine.run("install", "-o", owner, "-m", "755", "/usr/bin/sleep", f"{home}/run")
    machine.run("ln", "-sfn", f"{home}/run", "/usr/local/bin/linked")
    user = f"User={account}\n" if account else ""
    program = "/usr/local/bin/linked" if linked else f"{home}/run"
    install(machine, "theirs", CLEAN.replace("ExecStart=/usr/bin/sleep", f"{user}ExecStart={program}"))
    assert doctor(machine, "theirs", "--only", "svc.perms")["svc.perms"]["verdict"] == verdict


def test_a_declaration_on_the_machine_is_compared_with_what_is_enabled(machine):
    install(machine, "masked", CLEAN)
    machine.run("mkdir", "-p", "/etc/ops-agent/services")
    machine.write("/etc/ops-agent/services/masked.toml", 'name = "masked"\nenable = true\nruntime = "systemd"\n')
    machine.run("systemctl", "disable", "masked")
    found = doctor(machine, "masked", "--only", "svc")
    assert found["svc.disabled-override"]["verdict"] == "fail"
    assert found["svc.disabled-override"]["fix"]["argv"] == ["systemctl", "enable", "masked.service"]


def test_a_changed_definition_is_stale_until_it_is_loaded(machine):
    install(machine, "stale", CLEAN)
    machine.run("systemctl", "start", "stale")
    machine.write("/etc/systemd/system/stale.service", CLEAN + "# changed\n")
    assert doctor(machine, "stale", "--only", "svc.stale")["svc.stale"]["verdict"] == "fail"
    machine.run("systemctl", "daemon-reload")
    assert doctor(machine, "stale", "--only", "svc.stale")["svc.stale"]["verdict"] == "pass"
    machine.run("rm", "/etc/systemd/system/stale.service")
    machine.run("systemctl", "daemon-reload")
    found = doctor(machine, "stale", "--only", "svc.stale")["svc.stale"]
    assert (found["verdict"], "definition is gone" in found["summary"]) == ("fail", True)
    machine.run("systemctl", "stop", "stale")


def test_a_runaway_is_reported_with_its_count_and_its_rate(machine):
    install(machine, "runaway", RUNAWAY)
    machine.run("systemctl", "start", "--no-block", "runaway")
    restarts(machine, "runaway", 20)
    found = doctor(machine, "runaway", "--only", "svc,lint.restart-unbounded")
    machine.run("systemctl", "stop", "runaway")
    assert found["svc.restart-count"]["verdict"] == "fail"
    assert "automatic restarts" in found["svc.restart-count"]["summary"]
    assert "an hour" in found["svc.restart-count"]["summary"]
    assert found["svc.last-exit"]["verdict"] == "warn"
    assert found["lint.restart-unbounded"]["verdict"] == "fail"


def test_a_runaway_slower_than_a_short_look_is_one_all_the_same(machine):
    install(machine, "slow", SLOW)
    machine.run("systemctl", "start", "--no-block", "slow")
    restarts(machine, "slow", 4)
    found = doctor(machine, "slow", "--only", "svc.restart-count,svc.last-exit")
    machine.run("systemctl", "stop", "slow")
    assert found["svc.last-exit"]["verdict"] == "warn", found["svc.last-exit"]  # its process runs, almost always
    assert "status 3" in found["svc.last-exit"]["summary"]
    assert found["svc.restart-count"]["verdict"] == "fail"
    assert "a runaway" in found["svc.restart-count"]["summary"]
    told = found["svc.restart-count"]["summary"]
    assert "by the journal of" in told or "an hour now" in told  # the next restart may fall into the short look


def test_a_unit_that_can_not_be_loaded_fails_with_the_managers_reason(machine):
    install(machine, "broken", "[Service]\nType=simple\n")
    found = doctor(machine, "broken", "--only", "svc,lint")
    assert found["svc.state"]["verdict"] == "fail"
    assert found["lint.unit-syntax"]["verdict"] == "fail"


def test_the_machines_own_sweep_names_what_was_planted(machine):
    machine.run(PROGRAM, "doctor", "local-runtime", "--only", "persist", "--save-baseline", "/root/before.json")
    found = doctor(machine, "local-runtime", "--only", "persist", "--baseline", "/root/before.json")
    assert {each["verdict"] for each in found.values()} <= {"pass", "skip"}, found
    install(machine, "planted", CLEAN)
    machine.run("mkdir", "-p", "/etc/cron.d", "/root/.ssh")
    machine.write("/etc/cron.d/planted", "* * * * * root true\n")
    machine.write("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA planted\n")
    machine.write("/etc/profile.d/planted.sh", "true\n")
    found = doctor(machine, "local-runtime", "--only", "persist", "--baseline", "/root/before.json")
    for id, path in (
        ("persist.units", "/etc/systemd/system/planted.service"), ("persist.cron", "/etc/cron.d/planted"),
        ("persist.keys", "/root/.ssh/authorized_keys"), ("persist.login", "/etc/profile.d/planted.sh"),
    ):  # fmt: skip
        assert found[id]["verdict"] == "warn"
        assert path in [each["path"] for each in found[id]["evidence"]]


def test_a_program_of_a_nix_store_is_told_and_a_collected_one_fails(machine):
    store = "/nix/store/0c8f4xw1k2j3h4g5f6d7s8a9q0p1o2i3-web-1"
    machine.run("mkdir", "-p", f"{store}/bin", "/run/current-system/sw/bin")
    machine.run("cp", "/usr/bin/sleep", f"{store}/bin/web")
    machine.run("ln", "-sfn", f"{store}/bin/web", "/run/current-system/sw/bin/web")
    install(machine, "nix", CLEAN.replace("/usr/bin/sleep", "/run/current-system/sw/bin/web"))
    found = doctor(machine, "nix", "--only", "nix,lint.opaque-nix")
    assert found["nix.gc"]["verdict"] == "pass"
    assert found["lint.opaque-nix"]["verdict"] == "pass"
    assert store in found["nix.source"]["summary"]
    machine.run("rm", "-rf", store)
    found = doctor(machine, "nix", "--only", "nix")
    assert found["nix.gc"]["verdict"] == "fail"
    assert store in found["nix.gc"]["summary"]
