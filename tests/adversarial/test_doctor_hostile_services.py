"""status, logs, list, quarantine and release of services whose files or podman are hostile: bounded, shown harmlessly.

On a machine that systemd booted, by the command line; what `doctor` says of such input is in test_doctor_hostile.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.integration.test_doctor_hostile import PODMANS
from tests.parts import booted_machine, docker_engine
from tests.parts.booted_machine import PROGRAM, BootedMachine
from tests.parts.service_commands import declare

pytestmark = pytest.mark.timeout(240)
SECONDS = 60
"""Within which each command ends, on a machine that others use too."""
UNITS = "/etc/systemd/system"
PLAIN = "[Service]\\nExecStart=/bin/sleep 1000\\n"
HOSTILE = {
    "binary": "head -c 99 /dev/urandom >$U; printf '[Service]\\n\\001\\377ExecStart=/bin/sleep 1000\\n' >>$U",
    "own-link": "ln -s $U $U",
    "circle": f"printf '{PLAIN}' >$U; mkdir $U.d; ln -s b.conf $U.d/a.conf; ln -s a.conf $U.d/b.conf; ln -s .. $U.d/up",
    "escapes": "printf '[Unit]\\nDescription=\\033]0;owned\\007\\033[2J\\n[Service]\\n"
    "ExecStart=/bin/sh -c \"printf '\\\\\\\\033[2Jsaid\\\\\\\\rhidden\\\\\\\\n'; exec sleep 1000\"\\n"
    "Environment=A=\\033[31m\\n' >$U",
    "fifo": "mkfifo $U",
}


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    for why in (docker_engine.missing(), booted_machine.missing()):
        require(why is None, why or "")
    with docker_engine.docker_engine() as engine, booted_machine.booted_machine(engine) as booted:
        booted.run("mkdir", "-p", "/etc/ops-agent/services", "/var/log/journal")
        yield booted


def told(machine: BootedMachine, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person does; it ends in time, with a status of its own, and sends no escape."""
    begun = time.monotonic()
    done = machine.tried(PROGRAM, *words)
    assert time.monotonic() - begun < SECONDS, words
    assert done.returncode in (0, 1, 2), (words, done)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "internal error" not in said
    assert not set(said) & set("\x1b\x07\r"), words
    return done


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_service_of_a_hostile_unit_is_told_contained_and_put_back_as_it_was(machine, kind):
    unit = f"{UNITS}/{kind}.service"
    machine.run("sh", "-c", f"U={unit}; {HOSTILE[kind]}; systemctl daemon-reload; systemctl start {kind}", check=False)
    look = f"stat -c '%F %a %U' {unit}; readlink {unit}; test -p {unit} || sha256sum {unit} 2>&1; ls -lA {unit}.d 2>&1"
    before = machine.run("sh", "-c", look, check=False)
    for command in ("status", "logs"):
        told(machine, command, kind)
    done = told(machine, "quarantine", kind, "--execute")
    state = [machine.show(f"{kind}.service", name) for name in ("LoadState", "ActiveState")]
    if kind in ("own-link", "fifo"):
        assert done.returncode != 0  # systemd makes no unit of it either
        assert state[0] != "masked"
    else:
        assert state == ["masked", "inactive"]
        # systemd 252 disables nothing whose file, or whose neighbour's, it can't make sense of: that is told.
        assert done.returncode == 0 or "FAIL disable" in done.stdout, done
        assert told(machine, "release", kind, "--execute").returncode == 0
    assert machine.run("sh", "-c", look, check=False) == before


def test_a_neighbours_bad_link_stops_neither_quarantine_nor_release(machine):
    """systemd 252 does what it is asked, and then fails over the link to itself that stands beside it."""
    machine.run("ln", "-sf", f"{UNITS}/itself.service", f"{UNITS}/itself.service")
    text = f"{PLAIN}[Install]\\nWantedBy=multi-user.target\\n"
    machine.run("sh", "-c", f"printf '{text}' >{UNITS}/beside.service; systemctl enable --now beside")
    assert machine.status("systemctl", "disable", "beside") == 1
    machine.run("systemctl", "enable", "beside")
    assert told(machine, "quarantine", "beside", "--execute").returncode == 0
    assert [machine.show("beside.service", name) for name in ("LoadState", "ActiveState")] == ["masked", "inactive"]
    assert told(machine, "release", "beside", "--start", "--execute").returncode == 0
    assert [machine.show("beside.service", name) for name in ("UnitFileState", "ActiveState")] == ["enabled", "active"]


def test_a_list_of_hostile_names_and_files_has_a_line_each(machine):
    place = "/etc/ops-agent/services"
    script = (
        f"cd {place}; touch \"$(printf 'a\\nb').toml\" "
        "\"$(printf '\\033[2Jx').toml\" \"$(printf '\\377').toml\" -- '-x.toml' '..toml'; mkfifo fifo.toml; "
        "ln -s loop.toml loop.toml; head -c 10485760 /dev/zero >zeros.toml; head -c 4096 /dev/urandom >noise.toml"
    )
    machine.run("sh", "-c", script)
    try:
        done = told(machine, "list")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert len(lines) == len(json.loads(told(machine, "list", "--json").stdout)["value"]), lines
        for name in ("fifo", "loop", "zeros", "noise"):
            (line,) = [each for each in lines if each.startswith(name)]
            assert "inactive" not in line, "what could not be read is said, not guessed"
    finally:
        machine.run("sh", "-c", f"rm -rf {place}; mkdir {place}")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "../x"])
def test_a_name_that_is_none_is_refused_by_every_command(machine, name):
    for command in ("status", "logs", "stop", "release", "quarantine"):
        assert told(machine, command, "--", name).returncode == 2, command


@pytest.mark.parametrize("how", ["answers garbage", "dies", "answers without end"])
def test_a_podman_that_misbehaves_stops_no_quarantine(machine, how):
    name = "boxed-" + how.replace(" ", "-").lower()
    machine.run("mv", "/usr/bin/podman", "/usr/bin/podman.real")
    machine.write("/usr/bin/podman", f"#!/bin/sh\n{PODMANS[how]}\n")
    machine.run("chmod", "755", "/usr/bin/podman")
    declare(machine, name, f'name = "{name}"\nruntime = "podman"\nimage = "localhost/web:1"\n')
    machine.run(
        "sh", "-c", f"printf '{PLAIN}' >{UNITS}/{name}.service; systemctl daemon-reload; systemctl start {name}"
    )
    try:
        told(machine, "status", name)
        done = told(machine, "quarantine", name, "--execute")
        state = [machine.show(f"{name}.service", each) for each in ("LoadState", "ActiveState")]
        assert state == ["masked", "inactive"], done
        assert told(machine, "release", name, "--execute").returncode == 0
    finally:
        machine.run("mv", "/usr/bin/podman.real", "/usr/bin/podman")
