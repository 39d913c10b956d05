"""Services told about and mended on a machine that systemd booted: status, logs, list, repair."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.service_commands import CANARY, declare, ops
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)
SAYS = """name = "says"
enable = true
command = ["/usr/local/bin/says"]
[logs]
stdout = "/var/log/says/out.log"
"""
SCRIPT = f"#!/bin/sh\necho ready with password={CANARY}\nexec sleep 1000\n"


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        booted.write("/usr/local/bin/says", SCRIPT)
        booted.run("chmod", "755", "/usr/local/bin/says")
        yield booted


def test_a_directory_that_is_missing_is_made_by_repair_and_nothing_else_is_done(machine):
    """The plan changes nothing; executed it mends what can be; a second time it finds nothing."""
    declare(machine, "says", SAYS)
    plan = ops(machine, "repair", "says", rc=None)
    assert [each["id"] for each in plan["plan"]] == ["logs.dir"]
    assert machine.status("test", "-e", "/var/log/says") != 0
    done = ops(machine, "repair", "says", "--execute", rc=None)
    assert [each["rc"] for each in done["done"]] == [0]
    assert machine.run("stat", "-c", "%U %a", "/var/log/says").split() == ["root", "750"]
    again = ops(machine, "repair", "says", "--execute", rc=None)
    assert again["plan"] == []


def test_a_definition_that_was_changed_behind_the_manager_is_loaded_by_repair(machine):
    declare(machine, "says", SAYS)
    ops(machine, "install", "says", "--execute")
    ops(machine, "start", "says", "--execute")
    before = machine.show("says.service", "MainPID")
    time.sleep(1.1)  # no wait for an event: two times of files are to be apart
    machine.run("touch", "/etc/systemd/system/says.service")
    assert machine.show("says.service", "NeedDaemonReload") == "yes"
    done = ops(machine, "repair", "says", "--execute", rc=None)
    assert "daemon-reload" in str(done["plan"])
    assert machine.show("says.service", "NeedDaemonReload") == "no"
    assert machine.show("says.service", "MainPID") == before  # nothing was restarted


def test_status_logs_and_list_tell_of_what_is_there(machine):
    declare(machine, "says", SAYS)
    declare(machine, "idle", 'name = "idle"\nenable = true\ncommand = ["/bin/sleep", "9"]\n')
    ops(machine, "install", "says", "--execute")
    ops(machine, "start", "says", "--execute")
    eventually_now(
        lambda: "ready" in machine.run("cat", "/var/log/says/out.log", check=False), within_s=20, what="its words"
    )
    status = ops(machine, "status", "says")["value"]
    assert (status["ActiveState"], status["installed_by_us"], status["declared"], status["quarantined"]) == (
        "active",
        True,
        True,
        False,
    )
    assert int(status["MainPID"]) > 1
    assert ops(machine, "status", "idle", rc=1)["value"]["LoadState"] == "not-found"
    logs = "\n".join(ops(machine, "logs", "says", "-n", "50")["notes"])
    assert "ready with password=" in logs
    assert CANARY not in logs
    rows = {each["name"]: each for each in ops(machine, "list")["value"]}
    assert (rows["says"]["active"], rows["says"]["installed"]) == ("active", True)
    assert (rows["idle"]["load"], rows["idle"]["installed"]) == ("not-found", False)
    shown = machine.run(PROGRAM, "list")
    assert "says" in shown
    assert "idle" in shown
    assert machine.tried(PROGRAM, "status", "nobody-has-this").returncode in (1, 2)
