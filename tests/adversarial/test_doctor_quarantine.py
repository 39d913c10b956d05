"""Quarantine against what a host may put in its way: links, sizes, hung programs, a run that was cut off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.service_commands import CANARY, agent_there, ops, plant

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        yield booted


def test_a_log_that_leads_to_another_file_is_not_captured(machine):
    machine.write("/root/private-file", f"{CANARY}-private\n")
    machine.run("ln", "-sf", "/root/private-file", "/tmp/linked.log")
    machine.run("mkdir", "-p", "/tmp/some")
    machine.run("ln", "-sfn", "/root", "/tmp/some/dir")
    plant(machine, "linked", "[Service]\nExecStart=/bin/sh -c 'date >/tmp/some/dir/private-file'\n"
          "StandardOutput=append:/tmp/linked.log\n")  # fmt: skip
    told = ops(machine, "quarantine", "linked", "--execute")
    manifest = json.loads(machine.run("cat", f"{told['bundle']}/manifest.json"))
    assert len([each for each in manifest["incomplete"] if "is a link, or stands behind one" in each]) == 2
    assert machine.status("grep", "-r", f"{CANARY}-private", told["bundle"]) == 1


def test_a_unit_of_10_mb_is_contained_and_comes_back_as_it_was(machine):
    path = plant(machine, "huge", "[Service]\nExecStart=/bin/sleep 1000\n")
    machine.run("sh", "-c", f"yes '# {'x' * 200}' | head -c 10000000 >> {path}; systemctl daemon-reload")
    machine.run("systemctl", "start", "huge")
    assert ops(machine, "status", "huge")["value"]["ActiveState"] == "active"
    ops(machine, "logs", "huge")
    as_it_is = f"sha256sum {path}; stat -c '%i %a %U %Y' {path}"  # the same file, not a copy of it
    before = machine.run("sh", "-c", as_it_is)
    told = ops(machine, "quarantine", "huge", "--execute")
    assert [machine.show("huge.service", name) for name in ("LoadState", "ActiveState")] == ["masked", "inactive"]
    assert json.loads(machine.run("cat", f"{told['bundle']}/manifest.json"))["incomplete"] != []
    ops(machine, "release", "huge", "--execute")
    assert machine.run("sh", "-c", as_it_is) == before


def test_what_somebody_put_in_its_place_meanwhile_is_not_overwritten(machine):
    path = plant(machine, "replaced", "[Service]\nExecStart=/bin/sleep 1000\n")
    ops(machine, "quarantine", "replaced", "--execute")
    machine.run("rm", path)
    plant(machine, "replaced", "[Service]\nExecStart=/bin/sleep 2000\n")
    told = ops(machine, "release", "replaced", "--execute", rc=1)
    assert any("nothing is moved over it" in each for each in told["notes"])
    assert "sleep 2000" in machine.run("cat", path)
    machine.run("rm", path)
    ops(machine, "release", "replaced", "--execute")
    assert "sleep 1000" in machine.run("cat", path)


def test_a_definition_that_was_copied_back_by_hand_is_contained_again(machine):
    path = plant(machine, "copied", "[Service]\nExecStart=/bin/sleep 1000\n")
    for waits in (0, 1):
        machine.run("systemctl", "start", "copied")
        ops(machine, "quarantine", "copied", "--execute")
        assert [machine.show("copied.service", name) for name in ("LoadState", "ActiveState")] == ["masked", "inactive"]
        held = "/var/lib/ops-agent/services/copied"
        assert machine.run("sh", "-c", f"ls -d {held}/earlier-* 2>/dev/null | wc -l").strip() == str(waits)
        if not waits:
            machine.run("systemctl", "unmask", "copied")
            machine.run("cp", f"{held}/held/definition", path)
            machine.run("systemctl", "daemon-reload")
    ops(machine, "release", "copied", "--execute")
    assert "sleep 1000" in machine.run("cat", path)


def test_a_podman_that_hangs_delays_a_quarantine_and_does_not_stop_it(machine):
    machine.run("mv", "/usr/bin/podman", "/usr/bin/podman.works")
    machine.write("/usr/bin/podman", "#!/bin/sh\nsleep 1000\n")
    machine.run("chmod", "755", "/usr/bin/podman")
    plant(
        machine,
        "stuck",
        "[Service]\nExecStart=/bin/sleep 1000\nExecStop=/usr/bin/podman stop stuck\nTimeoutStopSec=2\n",
    )
    machine.run("systemctl", "start", "stuck")
    try:
        begun = time.monotonic()
        told = ops(machine, "quarantine", "stuck", "--execute")
        assert time.monotonic() - begun < 60
        assert machine.show("stuck.service", "LoadState") == "masked"
        manifest = json.loads(machine.run("cat", f"{told['bundle']}/manifest.json"))
        assert any("gave no answer" in each for each in manifest["incomplete"])
    finally:
        machine.run("mv", "/usr/bin/podman.works", "/usr/bin/podman")


def test_a_quarantine_that_was_cut_off_goes_on_and_remembers_what_was(machine):
    plant(machine, "half", "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n")
    machine.run("systemctl", "enable", "--now", "half")
    held = ["facts:*", "observe:load", "service.read:*", "container.read:*", "image.read:*", "fs.read:/**",
            "fs.write:/var/lib/ops-agent/**", "fs.remove:/etc/systemd/system/half.service", "service.control:*",
            "service.install:*"]  # fmt: skip
    with agent_there(machine, held) as host:
        told = ops(machine, "quarantine", "half", "--execute", "--host", host, rc=1)
        assert any(each.startswith("mask failed: denied by the agent") for each in told["notes"])
    assert machine.status("test", "-e", "/etc/systemd/system/half.service") != 0
    again = ops(machine, "quarantine", "half", "--execute")
    assert again["bundle"] == told["bundle"]
    assert machine.show("half.service", "LoadState") == "masked"
    ops(machine, "release", "half", "--start", "--execute")
    assert [machine.show("half.service", name) for name in ("UnitFileState", "ActiveState")] == ["enabled", "active"]


@pytest.mark.parametrize("name", ["ops-agent", "dbus", "systemd-journald", "ssh"])
def test_what_the_host_needs_is_not_quarantined(machine, name):
    assert "needed to run this host" in ops(machine, "quarantine", name, "--execute", rc=2)["stderr"]


@pytest.mark.parametrize("name", ["a\nb", "../x", "-x.service", "no-such-thing"])
def test_a_name_that_is_none_is_refused(machine, name):
    assert machine.status(PROGRAM, "quarantine", "--execute", "--", name) == 2
