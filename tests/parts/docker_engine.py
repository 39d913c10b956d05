"""A docker engine for tests: the one that answers, else a `dockerd` of the test's own, with no bridge and no rules.

Everything made with it carries the label `opsexec.test=<this process>`, and only what carries it is removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.waiting import eventually_now

LABEL = f"opsexec.test={os.getpid()}"
SYSTEM_DIRS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    if shutil.which("docker", path=SYSTEM_DIRS) is None:
        return "no docker program (apt-get install docker.io)"
    if DockerEngine(None).answers():
        return None
    if os.geteuid() != 0:
        return "no docker engine answers, and starting one needs root"
    return None if shutil.which("dockerd", path=SYSTEM_DIRS) else "no docker engine answers, and there is no dockerd"


class DockerEngine:
    """One engine; `socket` None: the machine's own."""

    def __init__(self, socket: Path | None) -> None:
        self.socket = socket or Path("/var/run/docker.sock")
        self._env = {**os.environ, **({"DOCKER_HOST": f"unix://{socket}"} if socket else {})}
        self._program = shutil.which("docker", path=SYSTEM_DIRS) or "docker"

    def docker(self, *words: str, within_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker command line against this engine."""
        argv = [self._program, *words]
        done = subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=within_s, check=False)
        assert not check or done.returncode == 0, f"docker {words[:2]}: {done.stderr[-2000:]}"
        return done

    def answers(self) -> bool:
        """True when an engine is there."""
        return self.docker("version", "--format", "{{.Server.Version}}", within_s=20, check=False).returncode == 0

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
        home = Path(name)
        argv = [shutil.which("dockerd", path=SYSTEM_DIRS) or "dockerd", "--iptables=false", "--bridge=none"]
        argv += ["--host", f"unix://{home}/docker.sock", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec"]
        argv += ["--pidfile", f"{home}/dockerd.pid"]
        with (home / "dockerd.log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        engine = DockerEngine(home / "docker.sock")
        try:
            eventually_now(
                lambda: process.poll() is not None or ((home / "docker.sock").exists() and engine.answers()),
                within_s=60,
                what="dockerd answers",
            )
            assert process.poll() is None, (home / "dockerd.log").read_text()[-2000:]
            yield engine
        finally:
            if process.poll() is None:
                engine.remove_ours()
                process.terminate()
            process.wait(30)
