"""The units on a machine that systemd booted: installed by the script, ready, reloaded, killed, bounded, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import require
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)

INSTALL = "/opt/opsexec/src/deploy/install.sh"
UNIT = "ops-agent.service"
CONFIG = """[agent]
listen = ["unix:/run/ops-agent/agent.sock"]
state_dir = "/var/lib/ops-agent"
socket_group = "ops-agent"
{more}
[[grants]]
principal = "unix:root"
capabilities = ["exec:**", "shell:*", "fs.*:/**", "observe:services"]
run_as = ["*"]
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        yield booted


@pytest.fixture
def installed(machine: BootedMachine) -> Iterator[BootedMachine]:
    """The agent, installed for the machine, with everything granted to root there."""
    machine.run("mkdir", "-p", "/etc/ops-agent")
    machine.write("/etc/ops-agent/config.toml", CONFIG.format(more=""))
    machine.run(INSTALL, "--system")
    yield machine
    machine.run(INSTALL, "--system", "--uninstall", "--purge")


def ask(machine: BootedMachine, step: dict[str, Any], *, user: str = "root", **more: Any) -> list[dict[str, Any]]:
    """Return the lines of the agent's answer to a request as JSON, asked for on the machine itself."""
    script = (
        "import http.client, socket, sys\n"
        "c = http.client.HTTPConnection('agent', timeout=20)\n"
        "c.sock = socket.socket(socket.AF_UNIX); c.sock.settimeout(20); c.sock.connect('/run/ops-agent/agent.sock')\n"
        "c.request('POST', '/v1/steps', sys.argv[1],\n"
        "    {'Content-Type': 'application/json', 'Accept': 'application/x-ndjson'})\n"
        "sys.stdout.write(c.getresponse().read().decode())\n"
    )
    said = machine.run("/usr/bin/python3", "-I", "-c", script, json.dumps({"step": step, **more}), user=user)
    return [json.loads(line) for line in said.splitlines()]


def main_pid(machine: BootedMachine) -> str:
    return machine.show(UNIT, "MainPID")


def is_new(machine: BootedMachine, before: str) -> bool:
    """True once another process than `before` serves."""
    return main_pid(machine) not in ("0", before) and machine.show(UNIT, "ActiveState") == "active"


def test_the_unit_is_ready_when_the_agent_says_so(installed: BootedMachine) -> None:
    assert installed.show(UNIT, "ActiveState") == "active"
    assert installed.show(UNIT, "StatusText") == "serving 1 grants"
    assert installed.run("stat", "-c", "%a %U %G", "/run/ops-agent/agent.sock").split() == ["660", "root", "ops-agent"]
    assert installed.run("stat", "-c", "%a", "/var/lib/ops-agent", "/run/ops-agent").split() == ["700", "755"]
    (out, end) = ask(installed, {"type": "exec", "argv": ["/usr/bin/id", "-un"]})
    assert (out["stdout"], end["result"]["exit_code"]) == ("root\n", 0)


def test_a_mount_that_a_step_makes_is_the_machines(installed: BootedMachine) -> None:
    for kind in ("mnt", "uts", "net", "user", "ipc"):
        of_agent = installed.run("readlink", f"/proc/{main_pid(installed)}/ns/{kind}")
        assert of_agent == installed.run("readlink", f"/proc/1/ns/{kind}")


def test_what_no_step_needs_is_refused_to_all_of_them(installed: BootedMachine) -> None:
    *_, end = ask(installed, {"type": "exec", "argv": ["/usr/bin/date", "-s", "2020-01-01"]})
    assert end["result"]["exit_code"] == 1
    bounds = ask(installed, {"type": "exec", "argv": ["/usr/bin/grep", "-E", "CapBnd|Seccomp:", "/proc/self/status"]})
    bounding, mode = re.findall(r":\s*(\w+)", bounds[0]["stdout"])
    for dropped in (16, 17, 22, 25):  # SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME: linux/capability.h
        assert not int(bounding, 16) >> dropped & 1
    assert mode == "2"


IN_PASSING = """
import socket, subprocess
link = socket.socket(socket.AF_UNIX)
link.settimeout(30)
link.connect('/run/ops-agent/agent.sock')
link.sendall(b'GET /v1/events?names=services HTTP/1.1\\r\\nHost: a\\r\\nAccept: application/x-ndjson\\r\\n\\r\\n')
again = 'while systemd-run --quiet --wait --collect --unit=passing /bin/true; do sleep 0.2; done'
with subprocess.Popen(['sh', '-c', again], start_new_session=True) as passing:
    try:
        for line in link.makefile('rb'):
            if b'passing.service' in line and b'active/running' in line:
                print('told')
                break
    finally:
        passing.terminate()
"""


def test_the_systems_services_are_told_also_those_that_end_at_once(installed: BootedMachine) -> None:
    assert installed.run("/usr/bin/python3", "-I", "-c", IN_PASSING).strip() == "told"


def test_reload_takes_a_new_file_and_says_what_is_wrong_with_a_bad_one(installed: BootedMachine) -> None:
    more = '[limits]\nmax_runs_per_principal = 3\n[[grants]]\nprincipal = "unix:daemon"\ncapabilities = ["facts:*"]'
    installed.write("/etc/ops-agent/config.toml", CONFIG.format(more=more))
    before = main_pid(installed)
    installed.run("systemctl", "reload", UNIT)
    eventually_now(lambda: installed.show(UNIT, "StatusText") == "serving 2 grants", within_s=10, what="it reloads")
    installed.write("/etc/ops-agent/config.toml", CONFIG.format(more="colour = 1"))
    assert installed.status("systemctl", "reload", UNIT) != 0
    assert "unknown key 'colour'" in installed.run("journalctl", "-u", UNIT, "--no-pager", "-n", "20")
    assert (installed.show(UNIT, "StatusText"), main_pid(installed)) == ("serving 2 grants", before)
    ask(installed, {"type": "exec", "argv": ["/bin/true"]})


def test_killed_it_is_started_again_and_detached_runs_never_notice(installed: BootedMachine) -> None:
    script = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo ended > /tmp/ended"
    step = {"type": "shell", "action": "wait", "script": script}
    (started,) = ask(installed, step, run="detached-run-1", detach=True)
    assert started == {"started": "detached-run-1"}
    for how in (("kill", "-9"), ("systemctl", "restart")):
        before = main_pid(installed)
        installed.run(*how, before if how[0] == "kill" else UNIT)
        eventually_now(
            partial(is_new, installed, before),
            within_s=30,
            what="it is started again",
        )
        assert installed.show(UNIT, "StatusText") == "serving 1 grants"
        assert installed.status("test", "-e", "/tmp/ended") == 1
        assert how[0] != "kill" or installed.show(UNIT, "NRestarts") == "1"
    installed.run("touch", "/tmp/go")
    eventually_now(lambda: installed.status("test", "-e", "/tmp/ended") == 0, within_s=10, what="the run ends")
    eventually_now(lambda: len(lines_of(installed, "detached-run-1")) == 2, within_s=10, what="its outcome is recorded")
    recorded = lines_of(installed, "detached-run-1")
    assert [(each.get("decision"), bool(each.get("outcome"))) for each in recorded] == [("allow", False), (None, True)]


def lines_of(machine: BootedMachine, run: str) -> list[dict[str, Any]]:
    """What the agent's audit holds about a run."""
    found = map(json.loads, machine.run("cat", "/var/lib/ops-agent/audit.jsonl").splitlines())
    return [each for each in found if each.get("run") == run]


def test_a_crash_loop_comes_to_an_end(installed: BootedMachine) -> None:
    installed.run("systemctl", "stop", UNIT)
    installed.run("rm", "-rf", "/var/lib/ops-agent/audit.jsonl")
    installed.run("mkdir", "/var/lib/ops-agent/audit.jsonl")
    installed.run("systemctl", "start", UNIT, check=False)
    eventually_now(
        lambda: installed.show(UNIT, "ActiveState") == "failed" and installed.show(UNIT, "NRestarts") != "0",
        within_s=60,
        what="systemd gives up",
    )
    assert int(installed.show(UNIT, "NRestarts")) <= 5
    journal = installed.run("journalctl", "-u", UNIT, "--no-pager", "-n", "40")
    assert "Start request repeated too quickly" in journal
    assert "Traceback" not in journal


def test_a_bad_file_is_no_reason_to_start_again(installed: BootedMachine) -> None:
    installed.run("systemctl", "stop", UNIT)
    installed.write("/etc/ops-agent/config.toml", "[agent\n")
    assert installed.status("systemctl", "start", UNIT) != 0
    assert (installed.show(UNIT, "NRestarts"), installed.show(UNIT, "ActiveState")) == ("0", "failed")


def test_an_agent_that_hangs_is_ended_and_started_again(installed: BootedMachine) -> None:
    installed.run("mkdir", "-p", "/run/systemd/system/ops-agent.service.d")
    installed.write("/run/systemd/system/ops-agent.service.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", UNIT)
    before = main_pid(installed)
    installed.run("kill", "-STOP", before)
    eventually_now(
        partial(is_new, installed, before),
        within_s=40,
        what="the watchdog starts it again",
    )
    installed.run("rm", "-r", "/run/systemd/system/ops-agent.service.d")
    assert "Watchdog timeout" in installed.run("journalctl", "-u", UNIT, "--no-pager", "-n", "40")


def test_confined_it_is_a_plain_user_on_a_system_it_cannot_write_to(machine: BootedMachine) -> None:
    try:
        machine.run(INSTALL, "--system", "--confined", "--no-start")
        machine.write("/etc/ops-agent/config.toml", CONFIG.format(more=""))
        machine.run("systemctl", "daemon-reload")
        said = machine.run("systemctl", "start", UNIT, check=False)
        assert not said, machine.run("journalctl", "-u", UNIT, "--no-pager", "-n", "20")
        (out, _) = ask(machine, {"type": "exec", "argv": ["/usr/bin/id", "-un"]})
        assert out["stdout"] == "ops-agent\n"
        status = ask(machine, {"type": "read_file", "path": "/proc/self/status"})
        assert status[-1]["result"]["exit_code"] == 0
        for path in ("/etc/x", "/usr/x", "/srv/x", "/home/x", "/root/x"):
            *_, end = ask(machine, {"type": "exec", "argv": ["/usr/bin/touch", path]})
            assert end["result"]["exit_code"] == 1, path
        (caps, _) = ask(machine, {"type": "exec", "argv": ["/usr/bin/grep", "-E", "Cap|NoNew", "/proc/self/status"]})
        assert set(re.findall(r"Cap\w+:\s*(\w+)", caps["stdout"])) == {"0" * 16}
        assert "NoNewPrivs:\t1" in caps["stdout"]
        (started,) = ask(machine, {"type": "exec", "argv": ["/bin/true"]}, run="confined-1", detach=True)
        assert started == {"started": "confined-1"}
        as_other = ask(machine, {"type": "exec", "argv": ["/usr/bin/id"], "run_as": "daemon"})
        assert "error" in as_other[-1]
    finally:
        machine.run(INSTALL, "--system", "--uninstall", "--purge")
    assert machine.status("getent", "group", "ops-agent") != 0


def files(machine: BootedMachine) -> set[str]:
    found = machine.run("find", "/etc", "/usr", "/var", "/run", "/root", "/home", "-xdev", "-newer", "/tmp/mark")
    passing = (
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/.pwd.lock",
    )
    return {
        line
        for line in found.splitlines()
        if not line.startswith(("/run/systemd", "/var/log", "/run/log", "/run/dbus", "/run/user", *passing))
    }


def test_uninstalling_leaves_the_audit_and_nothing_else(machine: BootedMachine) -> None:
    machine.run("touch", "/tmp/mark")
    machine.run(INSTALL, "--system")
    assert f"/etc/systemd/system/{UNIT}" in files(machine)
    machine.run(INSTALL, "--system", "--uninstall")
    left = {line for line in files(machine) if machine.status("test", "-d", line) != 0}
    assert left == {"/etc/ops-agent/config.toml", "/var/lib/ops-agent/audit.jsonl", "/var/lib/ops-agent/lock"} & left
    assert "/etc/ops-agent/config.toml" in left
    assert machine.run("systemctl", "list-unit-files", "--no-legend", "ops-agent*", check=False).strip() == ""
    assert machine.status("test", "-e", "/run/ops-agent") == 1
    machine.run(INSTALL, "--system", "--uninstall", "--purge")
    assert {line for line in files(machine) if "ops-agent" in line} == set()
    assert machine.run(INSTALL, "--system", "--uninstall").count("is not there") == 1


def test_a_dry_run_changes_nothing(machine: BootedMachine) -> None:
    machine.run("touch", "/tmp/mark")
    before = files(machine)
    said = machine.run(INSTALL, "--system", "--confined", "--dry-run", "--program", PROGRAM)
    assert f"write /etc/systemd/system/{UNIT}" in said
    assert "useradd" in said
    assert files(machine) == before


@pytest.fixture
def alice(machine: BootedMachine) -> Iterator[tuple[str, ...]]:
    """What a command of a plain user begins with, who has a service manager of her own."""
    machine.run("useradd", "-m", "alice")
    machine.run("loginctl", "enable-linger", "alice")
    uid = machine.run("id", "-u", "alice").strip()
    asking = ("env", "HOME=/home/alice", "USER=alice", f"XDG_RUNTIME_DIR=/run/user/{uid}")
    eventually_now(
        lambda: (
            machine.run(*asking, "systemctl", "--user", "is-active", "basic.target", user="alice", check=False)
            == "active\n"
        ),
        within_s=20,
        what="her service manager is up",
    )
    yield asking
    machine.run("loginctl", "disable-linger", "alice")
    machine.run("loginctl", "terminate-user", "alice", check=False)
    eventually_now(lambda: machine.status("userdel", "-r", "alice") in (0, 6), within_s=20, what="she has gone")


def test_a_user_installs_an_agent_of_her_own_without_root(machine: BootedMachine, alice: tuple[str, ...]) -> None:
    def hers(*argv: str, check: bool = True) -> str:
        return machine.run(*alice, *argv, user="alice", check=check)

    hers(INSTALL, "--user")
    show = ("systemctl", "--user", "show", "-P")
    assert hers(*show, "ActiveState", UNIT) == "active\n"
    assert hers(*show, "StatusText", UNIT) == "serving 0 grants\n"
    socket = alice[-1].partition("=")[2] + "/ops-agent/agent.sock"
    assert "unix:alice has no grant" in hers(PROGRAM, "whoami", f"agent+unix://{socket}", check=False)
    grant = '\n[[grants]]\nprincipal = "unix:alice"\ncapabilities = ["exec:**"]\n'
    hers("sh", "-c", 'printf "%s" "$1" >>/home/alice/.config/ops-agent/config.toml', "sh", grant)
    hers("systemctl", "--user", "reload", UNIT)
    eventually_now(
        lambda: "unix:alice on" in hers(PROGRAM, "whoami", f"agent+unix://{socket}", check=False),
        within_s=10,
        what="the grant holds",
    )
    before = hers(*show, "MainPID", UNIT).strip()
    hers("kill", "-9", before)
    eventually_now(
        lambda: hers(*show, "MainPID", UNIT).strip() not in ("0", before), within_s=20, what="it is started again"
    )
    hers(INSTALL, "--user", "--uninstall")
    left = hers("find", "/home/alice", "-type", "f", "-newer", "/usr/local/bin/ops-agent").splitlines()
    assert set(left) - {"/home/alice/.local/state/ops-agent/lock"} == {
        "/home/alice/.config/ops-agent/config.toml",
        "/home/alice/.local/state/ops-agent/audit.jsonl",
    }


def test_a_program_that_others_can_change_is_not_installed_for_root(machine: BootedMachine) -> None:
    machine.run("sh", "-c", f"mkdir -p /srv/loose && cp {PROGRAM} /srv/loose/ops-agent && chmod 777 /srv/loose")
    said = machine.run(INSTALL, "--system", "--program", "/srv/loose/ops-agent", check=False)
    assert "must not be what root runs" in said
    assert machine.status("test", "-e", f"/etc/systemd/system/{UNIT}") == 1
