"""Hostile input that a doctor has to bear, one test each: fail or unknown in bounded time, no traceback, no pass."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.services import report
from agent.services.declaration import parse_declaration
from agent.services.doctor import Request, examine
from opsexec import CapabilitySet, LocalExec
from opsexec.testing import MemoryAudit
from tests.integration.conftest import require_root

pytestmark = pytest.mark.anyio
UNITS = Path("/etc/systemd/system")
NAME = f"opsexec-test-hostile-{os.getpid()}"
SECONDS = 12
DEFINED = ("lint", "svc.perms", "svc.duplicate", "svc.scope", "nix")


@pytest.fixture
def unit():
    """The path of a unit of our own that no manager has loaded; what stands there goes with the test."""
    require_root()
    path = UNITS / f"{NAME}.service"
    UNITS.mkdir(parents=True, exist_ok=True)
    yield path
    subprocess.run(["rm", "-rf", str(path), f"{path}.d", str(UNITS / f"{NAME}.loop")], check=True)


async def look(only=DEFINED):
    begun = time.monotonic()
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        found = await examine(ex, Request(NAME, tuple(only)))
    assert time.monotonic() - begun < SECONDS
    text = report.human("h", found.findings, verbose=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    return {each.id: each for each in found.findings}


def none_passes(found) -> None:
    assert [each.id for each in found.values() if each.verdict == "pass"] == []
    assert any(each.verdict in ("fail", "unknown") for each in found.values())


async def test_a_unit_of_ten_megabytes_is_unknown_or_fails(unit):
    unit.write_bytes(b"[Service]\nExecStart=/bin/true\n" + b"# " + b"x" * (10 << 20))
    found = await look()
    assert found["lint.unit-syntax"].verdict in ("fail", "unknown")
    assert found["lint.raw-runtime-run"].verdict in ("skip", "unknown")
    assert [each.id for each in found.values() if each.verdict == "pass" and each.id.startswith("lint.")] == []


async def test_a_binary_unit_fails_and_nothing_is_made_of_it(unit):
    unit.write_bytes(b"[Service]\n\0\1\2\xff\xfeExecStart=/bin/true\n" * 1000)
    found = await look()
    assert found["lint.unit-syntax"].verdict == "fail"
    assert [each.id for each in found.values() if each.verdict == "pass" and each.id.startswith("lint.")] == []


async def test_a_unit_that_is_a_link_to_itself_never_passes(unit):
    unit.symlink_to(unit.name)
    none_passes(await look())


async def test_links_in_a_circle_never_pass(unit):
    loop = UNITS / f"{NAME}.loop"
    unit.symlink_to(loop)
    loop.symlink_to(unit)
    none_passes(await look())


async def test_drop_ins_in_a_circle_end(unit):
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    drop_ins = Path(f"{unit}.d")
    drop_ins.mkdir()
    (drop_ins / "a.conf").symlink_to("b.conf")
    (drop_ins / "b.conf").symlink_to("a.conf")
    (drop_ins / "again").symlink_to("..")
    found = await look()
    assert found["lint.unit-syntax"].verdict in ("fail", "unknown")
    assert [each.id for each in found.values() if each.verdict == "pass" and each.id.startswith("lint.")] == []


async def test_more_drop_ins_than_anyone_has_are_unknown(unit):
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    drop_ins = Path(f"{unit}.d")
    drop_ins.mkdir()
    for number in range(80):
        (drop_ins / f"{number:03}.conf").write_text("[Service]\nEnvironment=A=1\n")
    found = await look()
    assert found["lint.unit-syntax"].verdict == "unknown"
    assert found["lint.log-tmp"].verdict in ("skip", "unknown")


async def test_a_fifo_as_a_unit_does_not_hang(unit):
    os.mkfifo(unit)
    none_passes(await look())


async def test_a_directory_as_a_unit_is_no_unit(unit):
    unit.mkdir()
    none_passes(await look())


async def test_a_unit_full_of_terminal_escapes_and_line_breaks_is_shown_harmlessly(unit):
    unit.write_bytes(
        b"[Service]\nExecStart=/bin/sh -c 'true \x1b]0;owned\x07; podman run \x1b[2Jx'\nEnvironment=A\x1b[1m=\r1\n"
    )
    found = await look()
    assert found["lint.raw-runtime-run"].verdict == "fail"
    json.loads(report.as_json("h", list(found.values())))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a b", "../a", "-a", "a" * 300, "", "a;b"], ids=repr)
def test_a_name_that_is_none_is_usage_and_shown_harmlessly(name, tmp_path):
    argv = [sys.executable, "-m", "agent", "doctor", "--only", "svc", "--", name]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


PODMANS = {
    "hangs": "sleep 600",
    "answers garbage": "printf '\\377\\376{[\\033[2J'",
    "dies": "kill -SEGV $$",
    "answers without end": "exec yes",
    "ends with an error": "echo 'Error: \\033]0;owned\\007 refused' >&2; exit 125",
    "answers deep JSON": "head -c 200000 /dev/zero | tr '\\0' '['",
    "is not executable code": "",
}
PODMAN = """
name = "hostile"
runtime = "podman"
image = "localhost/hostile:1"
container_name = "hostile"
"""


@pytest.fixture
def bad_podman(tmp_path):
    """Runs the doctor where /usr/bin/podman is something else, in a mount namespace of its own."""
    require_root()

    def run(script: str) -> tuple[float, subprocess.CompletedProcess[str]]:
        fake = tmp_path / "fake_podman"
        fake.write_text(f"#!/bin/sh\n{script}\n" if script else "\x7fELF garbage")
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        there = Path("/usr/bin/podman")
        if not there.exists():
            pytest.fail("needs podman (apt-get install podman) to stand in for")
        declaration = tmp_path / "hostile.toml"
        declaration.write_text(PODMAN)
        parse_declaration(PODMAN.encode(), "hostile.toml")
        words = [
            "doctor",
            NAME,
            "--declaration",
            str(declaration),
            "--only",
            "podman,image,container",
            "--format",
            "json",
            "--fail-on",
            "unknown",
        ]
        argv = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" /usr/bin/podman; shift; exec "$@"', "sh", str(fake)]
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        begun = time.monotonic()
        done = subprocess.run(
            [*argv, sys.executable, "-m", "agent", *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return time.monotonic() - begun, done

    return run


@pytest.mark.parametrize("how", PODMANS)
def test_a_podman_that_misbehaves_is_never_a_pass_and_never_takes_long(how, bad_podman):
    took, done = bad_podman(PODMANS[how])
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)["findings"]
    assert {each["id"] for each in found if each["verdict"] == "pass"} <= {"podman.binary", "image.policy"}
    assert any(each["verdict"] in ("fail", "unknown") for each in found)
    assert took < 30
