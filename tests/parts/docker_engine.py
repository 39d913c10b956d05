"""A docker engine for tests: the one that answers, else a `dockerd` of the test's own, with no bridge and no rules.

Everything made with it carries the label `opsexec.test=<this process>`, and only what carries it is removed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.dockerd import answers, asked, program, start_dockerd, stop_dockerd

LABEL = f"opsexec.test={os.getpid()}"


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    if program("docker") is None:
        return "no docker program (apt-get install docker.io)"
    if DockerEngine(None).answers():
        return None
    if os.geteuid() != 0:
        return "no docker engine answers, and starting one needs root"
    return None if program("dockerd") else "no docker engine answers, and there is no dockerd"


class DockerEngine:
    """One engine; `socket` None: the machine's own."""

    def __init__(self, socket: Path | None) -> None:
        self.socket = socket or Path("/var/run/docker.sock")
        self._socket = socket

    def docker(self, *words: str, within_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker command line against this engine."""
        return asked(words, self._socket, within_s=within_s, check=check)

    def answers(self) -> bool:
        """True when an engine is there."""
        return answers(self._socket)

    def import_image(self, tar: Path, name: str, *changes: str) -> None:
        """Make an image of a root file system, under our label; layers that are there already are taken again."""
        words = [word for change in (*changes, f"LABEL {LABEL}") for word in ("-c", change)]
        self.docker("import", *words, str(tar), name, within_s=120)

    def remove_ours(self) -> None:
        """Remove the containers and images that carry our label."""
        containers = self.docker("ps", "-aq", "--filter", f"label={LABEL}").stdout.split()
        if containers:
            self.docker("rm", "-f", *containers, check=False)
        images = self.docker("images", "-q", "--filter", f"label={LABEL}").stdout.split()
        if images:
            self.docker("rmi", "-f", *sorted(set(images)), check=False)


@contextmanager
def docker_engine() -> Iterator[DockerEngine]:
    """A running engine; what was made under our label goes, and an engine that was started here ends."""
    engine = DockerEngine(None)
    if engine.answers():
        try:
            yield engine
        finally:
            engine.remove_ours()
        return
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as name:
        process = start_dockerd(Path(name), "--iptables=false", "--bridge=none")
        engine = DockerEngine(Path(name) / "docker.sock")
        try:
            yield engine
        finally:
            if process.poll() is None:
                engine.remove_ours()
            stop_dockerd(process)
