"""A real `systemd --user` of a test's own, on a machine whose PID 1 is something else.

It runs in a mount namespace with a /run of its own (where it finds that the system was booted with systemd) and in
cgroups of its own; anything else on the machine stays out of its sight. Needs root and cgroup v1 + unified, or v2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = Path("/sys/fs/cgroup")

START = """
set -eu
for directory in $CGROUP_DIRECTORIES; do echo $$ > "$directory/cgroup.procs"; done
grep -q "$CGROUP_NAME\\$" /proc/self/cgroup || exit 91
grep -q "^0::/$CGROUP_NAME\\$" /proc/self/cgroup || exit 92
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
exec /lib/systemd/systemd --user --unit=basic.target
"""


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    if os.geteuid() != 0:
        return "a systemd of its own needs root"
    for name in ("unshare", "nsenter", "systemctl"):
        if shutil.which(name) is None:
            return f"no {name} program"
    if not SYSTEMD.exists():
        return "systemd isn't installed"
    return None if _hierarchies() else "no cgroup hierarchy that systemd could use"


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    found = [CGROUPS / "systemd", CGROUPS / "unified"]
    return found if all((each / "cgroup.procs").exists() for each in found) else []


class UserSystemd:
    """`runtime_dir`: what XDG_RUNTIME_DIR must be to reach it. `unit` writes a unit file and loads it."""

    def __init__(self, home: Path) -> None:
        self.pid = 0
        self.runtime_dir = home / "run"
        self._units = home / "config/systemd/user"
        self._units.mkdir(parents=True)
        self.runtime_dir.mkdir(mode=0o700)
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
        }

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemctl", "--user", *words], env=self.env, capture_output=True, text=True, timeout=20, check=False
        )

    def inside(self, code: str) -> str:
        """Run Python where the machine looks booted with systemd, and return what it printed.

        Elsewhere systemctl enables units by itself, in the caller's own home, without asking the manager.
        """
        argv = ["nsenter", "-t", str(self.pid), "-m", sys.executable, "-c", code]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def unit(self, name: str, text: str) -> None:
        (self._units / name).write_text(text)
        done = self.systemctl("daemon-reload")
        assert done.returncode == 0, done.stderr


@contextmanager
def user_systemd(home: Path) -> Iterator[UserSystemd]:
    """A running service manager; its services and cgroups go with it."""
    manager = UserSystemd(home)
    name = f"opsexec-test-{os.getpid()}-{time.monotonic_ns()}"
    groups = [each / name for each in _hierarchies()]
    for group in groups:
        group.mkdir()
    env = {**manager.env, "CGROUP_NAME": name, "CGROUP_DIRECTORIES": " ".join(map(str, groups))}
    log = (home / "systemd.log").open("wb")
    process = subprocess.Popen(["unshare", "-m", "/bin/sh", "-c", START], env=env, stdout=log, stderr=log)
    manager.pid = process.pid
    try:
        _wait_until_up(manager, process, home / "systemd.log")
        yield manager
    finally:
        manager.systemctl("exit")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        log.close()
        for group in groups:
            _remove(group)


def _wait_until_up(manager: UserSystemd, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while manager.systemctl("is-active", "basic.target").stdout.strip() != "active":
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace")[-500:]
            raise RuntimeError(f"systemd didn't come up ({process.poll()}): {said}")
        time.sleep(0.05)


def _remove(group: Path) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        os.rmdir(directory)
