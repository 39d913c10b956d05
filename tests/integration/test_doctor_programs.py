"""The doctor as a program: its names once they are installed, and how long it takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.conftest import require_root

REPOSITORY = Path(__file__).parents[2]
NAMES = ("ops-agent", "sourceos", "sourceos-agent")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The project's programs as `scripts/setup.sh` installs them, in a directory of their own."""
    prefix = tmp_path_factory.mktemp("prefix")
    words = ["install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    argv = [sys.executable, "-m", "pip", *words, "--ignore-installed", "--prefix", str(prefix), "-e", str(REPOSITORY)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return prefix / "bin"


@pytest.fixture
def run(installed, tmp_path):
    def run(name: str, *words: str, prefix: tuple[str, ...] = ()) -> tuple[subprocess.CompletedProcess[str], float]:
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
        begun = time.monotonic()
        argv = [*prefix, str(installed / name), *words]
        done = subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
        return done, time.monotonic() - begun

    return run


@pytest.mark.parametrize("name", NAMES)
def test_each_name_of_the_program_answers_the_same_commands(run, name):
    listed, _ = run(name, "doctor", "--list-checks", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    assert {"svc.state", "persist.units"} <= {each["id"] for each in json.loads(listed.stdout)}
    found, _ = run(name, "doctor", "local-runtime", "--only", "host.platform", "--format", "json")
    assert found.returncode == 0, found.stderr
    assert [each["id"] for each in json.loads(found.stdout)["findings"]] == ["host.platform"]


def best(run, *words: str, prefix: tuple[str, ...] = ()) -> float:
    """The shortest of three runs: others share this machine."""
    took: list[float] = []
    for _ in range(3):
        done, seconds = run("sourceos", *words, prefix=prefix)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        took.append(seconds)
    return min(took)


def test_help_comes_at_once(run, capsys):
    took = best(run, "doctor", "--help")
    with capsys.disabled():
        print(f"\nsourceos doctor --help: {took * 1000:.0f} ms (wanted: 150 ms)")
    assert took < 0.6


def test_the_whole_host_is_examined_in_two_seconds_with_podman(run, capsys):
    require("podman", "needs podman (apt-get install podman)")
    took = best(run, "doctor", "local-runtime")
    with capsys.disabled():
        print(f"\nsourceos doctor local-runtime, with podman: {took:.2f} s (wanted: 2 s)")
    assert took < 6


def test_the_whole_host_is_examined_in_half_a_second_without_podman(run, capsys):
    require_root()
    podman = shutil.which("podman")
    hide = f"mount --bind /dev/null {podman} && " if podman else ""
    prefix = ("unshare", "-m", "sh", "-c", f'{hide}exec "$@"', "sh")
    found, _ = run("sourceos", "doctor", "local-runtime", "--only", "podman.binary", "-v", prefix=prefix)
    assert "there is no podman" in found.stdout
    took = best(run, "doctor", "local-runtime", prefix=prefix)
    with capsys.disabled():
        print(f"\nsourceos doctor local-runtime, without podman: {took:.2f} s (wanted: 0.5 s)")
    assert took < 3
