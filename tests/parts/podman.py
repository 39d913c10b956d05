"""A real podman for the doctor's tests: an image of two programs, containers that are taken away, a stopped machine.

It needs root. Where setrlimit or mixed cgroups stand in its way, its own containers.conf goes around them.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("/bin/sleep", "/bin/true")
LABEL = "opsexec-test"
CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
events_logger = "file"
"""


class Podman:
    """`image`: a local one. `run` starts a container of it; everything labelled goes at the end."""

    def __init__(self, home: Path) -> None:
        self.home = home
        conf = home / "containers.conf"
        conf.write_text(CONF)
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "CONTAINERS_CONF": str(conf)}
        self.image = f"localhost/{LABEL}-{os.getpid()}:1"

    def __call__(
        self, *words: str, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        argv = ["podman", *words]
        done = subprocess.run(argv, env=self.env | (env or {}), capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def make_image(self) -> None:
        archive = self.home / "image.tar"
        with tarfile.open(archive, "w") as tar:
            for path in _with_libraries(PROGRAMS):
                tar.add(os.path.realpath(path), path.lstrip("/"))
        self("import", str(archive), self.image)

    def run(self, name: str, *words: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        fixed = ("--name", name, "--label", f"{LABEL}=1", "--network=none", "--pull=never")
        self("run", "-d", *fixed, *options, self.image, *(words or ("/bin/sleep", "600")), env=env)

    def remove(self, name: str) -> None:
        self("rm", "-f", "-t", "0", name, check=False)


def _with_libraries(programs: tuple[str, ...]) -> list[str]:
    found = list(programs)
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=10, check=True).stdout
        found += [path for path in re.findall(r"(/\S+) \(0x", said) if path not in found]
    return found


@contextmanager
def podman(home: Path) -> Iterator[Podman]:
    """A podman with its image; containers and image go with it."""
    part = Podman(home)
    part.make_image()
    try:
        yield part
    finally:
        for name in part("ps", "-aq", "--filter", f"label={LABEL}=1", check=False).stdout.split():
            part.remove(name)
        part("rmi", "-f", part.image, check=False)


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    if os.geteuid() != 0:
        return "podman's tests need root"
    for name in ("podman", "runc"):
        if shutil.which(name) is None:
            return f"no {name} program (apt-get install {name})"
    return None


def stopped_machine(user: str, name: str = "dead") -> None:
    """Give a plain user a podman machine that is stopped, and a connection to the port it would listen on."""
    account = pwd.getpwnam(user)
    home = Path(account.pw_dir)
    machine = home / ".config/containers/podman/machine/qemu" / f"{name}.json"
    machine.parent.mkdir(parents=True)
    key = home / "machine-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20)
    nowhere = {"Path": str(home / "none")}
    told = {
        "ConfigPath": {"Path": str(machine)}, "CmdLine": ["/usr/bin/qemu-system-x86_64"], "Name": name, "CPUs": 1,
        "Memory": 512, "DiskSize": 10, "Port": 1, "RemoteUsername": "core", "IdentityPath": str(key), "Rootful": False,
        "ReadySocket": nowhere, "PidFilePath": nowhere, "VMPidFilePath": nowhere, "ImagePath": nowhere, "Mounts": [],
        "QMPMonitor": {"Address": nowhere, "Network": "unix", "Timeout": 2_000_000_000},
        "Created": "2026-01-01T00:00:00Z", "LastUp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    machine.write_text(json.dumps(told))
    uri = "ssh://core@127.0.0.1:1/run/user/1000/podman/podman.sock"
    conf = home / ".config/containers/containers.conf"
    lines = f'[engine]\nactive_service = "{name}"\n[engine.service_destinations.{name}]\nuri = "{uri}"\n'
    conf.write_text(f'{lines}identity = "{key}"\n')
    for path in [home / ".config", *sorted((home / ".config").rglob("*")), key]:
        os.chown(path, account.pw_uid, account.pw_gid)
