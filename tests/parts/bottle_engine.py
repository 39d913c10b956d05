"""A docker engine for bottles: a `dockerd` of the test's own in a network namespace of its own, with an agent image.

Whatever it routes, filters and bridges is in that namespace; `OUTSIDE` is an address there, in the internet's place.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.conftest import require
from tests.parts.dockerd import asked, start_dockerd, stop_dockerd
from tests.parts.lonely_internet import LonelyInternet
from tests.parts.root_archive import RootArchive

T = TypeVar("T")

OUTSIDE = "203.0.113.7"
IMAGE = "opsexec-test/agent:1"
DOCKERFILE = f"FROM {IMAGE}\n"
ROOT = RootArchive("agent-root", "ca-certificates,curl,git,iproute2,python3")


def require_engine() -> None:
    """Skip, or fail under REQUIRE_ALL, where no engine of our own can be started."""
    require(os.geteuid() == 0, "an engine of the test's own needs root")
    require("dockerd", "needs dockerd (apt-get install docker.io)")
    require("docker", "needs the docker program (apt-get install docker.io)")
    require(ROOT.can_be, "needs mmdebstrap to make an agent's image with")


class BottleEngine:
    """The engine. `socket`: where it listens; `netns`: the namespace it is in; `options`: more words for a start."""

    def __init__(self, home: Path, netns: str) -> None:
        self.home = home
        self.socket = home / "docker.sock"
        self.netns = netns
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []

    @property
    def address(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self.socket}"

    def docker(self, *words: str, within_s: float = 60, check: bool = True) -> str:
        """Run the docker command line against it; what it printed."""
        return asked(words, self.socket, within_s=within_s, check=check).stdout

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """What the engine says of containers, networks or images."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *names))
        return found

    def labelled(self, kind: str, *labels: str) -> list[str]:
        """The names of the containers (`ps`) or networks (`network`) that carry these labels."""
        words = ["ps", "-a", "--format", "{{.Names}}"] if kind == "ps" else ["network", "ls", "--format", "{{.Name}}"]
        return sorted(self.docker(*words, *(f"--filter=label={each}" for each in labels)).split())

    def running(self, label: str) -> list[str]:
        """The names of the containers with this label that run."""
        return sorted(self.docker("ps", "--format", "{{.Names}}", f"--filter=label={label}").split())

    def within(self, work: Callable[[], T]) -> T:
        """Do something in the engine's network namespace: sockets opened and threads started there stay there."""
        return LonelyInternet(self.netns).within(work)

    def ip(self, *words: str) -> str:
        """Run ip(8) in the engine's network namespace."""
        return subprocess.run(
            ["ip", "-n", self.netns, *words], check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def start(self) -> None:
        """Start the engine, and wait until it answers."""
        within = ["nsenter", f"--net=/run/netns/{self.netns}"]
        self.process = start_dockerd(self.home, *self.options, within=within)

    def stop(self) -> None:
        """End the engine; what ran in it ends as well."""
        if self.process is not None:
            stop_dockerd(self.process)

    def remove_all(self) -> None:
        """Remove every container: all there are in this engine are the test's own."""
        containers = self.docker("ps", "-aq").split()
        if containers:
            self.docker("rm", "-f", *containers, check=False)


@contextmanager
def bottle_engine(*options: str) -> Iterator[BottleEngine]:
    """A running engine with the image `IMAGE`, started with these options; all that it made goes with it."""
    require_engine()
    tar = ROOT.made()
    netns = f"opsdock{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", netns], check=True, timeout=20)
    try:
        with tempfile.TemporaryDirectory(prefix="bottles-", ignore_cleanup_errors=True) as name:
            engine = BottleEngine(Path(name), netns)
            engine.options = list(options)
            engine.ip("link", "set", "lo", "up")
            engine.ip("addr", "add", f"{OUTSIDE}/32", "dev", "lo")
            try:
                engine.start()
                engine.docker("import", str(tar), IMAGE, within_s=120)
                yield engine
            finally:
                if engine.process is not None and engine.process.poll() is None:
                    engine.remove_all()
                engine.stop()
                _unmount(Path(name))
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=False, timeout=20)


def _unmount(below: Path) -> None:
    """Unmount what an engine that ended left mounted: the namespaces of its networks."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split(" ")[1]
        if place.startswith(f"{below}/"):
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run(["umount", "-l", place], check=True, capture_output=True, timeout=20)
