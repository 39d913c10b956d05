"""A machine that systemd has booted: a container whose PID 1 it is, with this project's tree mounted read-only.

The root file system is made once by mmdebstrap and kept outside the repository, by what it holds: podman and sshd, too.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.docker_engine import LABEL, DockerEngine
from tests.parts.machine_podman import SETTINGS, MachinePodman
from tests.parts.machine_sshd import NO_SSHD
from tests.parts.root_archive import RootArchive
from tests.parts.waiting import eventually_now

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,python3,sudo,ca-certificates,podman,crun,"
    "openssh-server"
)
ROOT = RootArchive("systemd-root", PACKAGES, ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"))

PROGRAM = "/usr/local/bin/ops-agent"
WRAPPER = """#!/bin/sh
export PYTHONPATH=/opt/opsexec/src:/opt/opsexec/site PYTHONDONTWRITEBYTECODE=1
exec {python} -c 'import sys; from agent.cli import main; sys.exit(main())' "$@"
"""
"""What stands where an installation of this project would have its program; it lies outside of any home directory."""


def missing() -> str | None:
    """Why there can be none here (docker's side apart); None when there can."""
    if not ROOT.can_be:
        return "no mmdebstrap to make a root file system with"
    return None


class BootedMachine:
    """A running machine. `run`: a command there, as root; `podman`: its own."""

    def __init__(self, engine: DockerEngine, name: str) -> None:
        self._engine = engine
        self.name = name
        self.podman = MachinePodman(self)

    def run(self, *argv: str, check: bool = True, user: str = "root", within_s: float = 60) -> str:
        """Return what a command there printed, stderr after stdout."""
        done = self._engine.docker("exec", "-u", user, self.name, *argv, check=False, within_s=within_s)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def tried(self, *argv: str, within_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Return how a command there ended, whatever its status."""
        return self._engine.docker("exec", self.name, *argv, check=False, within_s=within_s)

    def status(self, *argv: str) -> int:
        """Return a command's exit status."""
        return self._engine.docker("exec", self.name, *argv, check=False).returncode

    def write(self, path: str, text: str) -> None:
        """Put a file there."""
        self.run("/bin/sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)

    def copy(self, here: Path, there: str) -> None:
        """Put a file of this host there; not into a directory that is a tmpfs there."""
        self._engine.docker("cp", str(here), f"{self.name}:{there}")

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).strip()


@contextmanager
def booted_machine(engine: DockerEngine) -> Iterator[BootedMachine]:
    """A machine of the test's own, without a network; it goes with the test."""
    image, name = f"opsexec-test/systemd:{os.getpid()}", f"opsexec-test-{os.getpid()}-{secrets.token_hex(4)}"
    if engine.docker("image", "inspect", image, check=False).returncode != 0:
        engine.import_image(ROOT.made(), image, 'CMD ["/sbin/init"]', "ENV container=docker")
    mounts = {"/opt/opsexec/src": str(REPOSITORY), "/opt/opsexec/site": sysconfig.get_path("purelib")}
    python = "/usr/bin/python3"
    if sys.base_prefix != "/usr":
        mounts["/opt/opsexec/python"] = sys.base_prefix
        python = "/opt/opsexec/python/bin/python3"
    words = ["create", "--name", name, "--label", LABEL, "--network", "none", "--stop-signal", "SIGRTMIN+3"]
    # NET_ADMIN in the machine's own network, which has none: a container of podman's brings its loopback up.
    words += ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]
    words += ["--security-opt", "seccomp=unconfined", "--cgroupns=private"]
    words += [word for each in ("/run", "/run/lock", "/tmp") for word in ("--tmpfs", each)]
    words += [word for there, here in mounts.items() for word in ("-v", f"{here}:{there}:ro")]
    engine.docker(*words, image)
    machine = BootedMachine(engine, name)
    try:
        with tempfile.TemporaryDirectory(prefix="machine-") as directory:
            for number, (path, text) in enumerate({**SETTINGS, NO_SSHD: ""}.items()):
                file = Path(directory) / str(number)
                file.write_text(text)
                machine.copy(file, path)
        engine.docker("start", name)
        eventually_now(
            lambda: machine.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"),
            within_s=60,
            what="systemd has booted",
        )
        machine.write(PROGRAM, WRAPPER.format(python=python))
        machine.run("chmod", "755", PROGRAM)
        machine.write("/etc/ld.so.conf.d/opsexec.conf", "/opt/opsexec/python/lib\n")
        machine.run("ldconfig")
        yield machine
    finally:
        engine.docker("rm", "-f", name, check=False)
