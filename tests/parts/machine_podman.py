"""The real podman of a booted machine: images that the test loads, containers without cgroups of their own.

A machine is itself a container, so podman's settings there go around what that takes away: `vfs` storage (no overlay
on an overlay), crun without cgroups (the tree is read-only, as the rules want it), no sysctls. All else is podman's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.parts.tiny_image import tiny_tar
from tests.parts.waiting import eventually_now

if TYPE_CHECKING:
    from tests.parts.booted_machine import BootedMachine

RUNTIME = "/usr/bin/crun"
SOCKET = "/run/podman/podman.sock"
CONNECTION = "here"
SETTINGS = {
    "/etc/containers/storage.conf": '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\n'
    'graphroot = "/var/lib/containers/storage"\n',
    "/etc/containers/containers.conf": f"""[containers]
cgroups = "disabled"
cgroupns = "host"
netns = "none"
default_sysctls = []
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "crun"
events_logger = "file"
[engine.service_destinations.{CONNECTION}]
uri = "unix://{SOCKET}"
""",
}


class MachinePodman:
    """The podman there; called with its words, it returns what it printed."""

    def __init__(self, machine: BootedMachine) -> None:
        self._machine = machine

    def __call__(self, *words: str, check: bool = True) -> str:
        return self._machine.run("podman", *words, check=check)

    def load(self, *names: str, settings: tuple[str, ...] = ()) -> None:
        """Make an image of a few programs, under these names; `settings`: such as `ENV A=1`. Nothing is pulled."""
        with tempfile.TemporaryDirectory(prefix="image-") as directory:
            tar = Path(directory) / "image.tar"
            tar.write_bytes(tiny_tar())
            self._machine.copy(tar, "/root/image.tar")
        changes = [word for each in settings for word in ("--change", each)]
        self("import", *changes, "/root/image.tar", names[0])
        for name in names[1:]:
            self("tag", names[0], name)

    def containers(self) -> dict[str, str]:
        """Return the state of every container by its name."""
        return {each["Names"][0]: each["State"] for each in json.loads(self("ps", "-a", "--format", "json"))}

    def become(self, **wanted: str) -> None:
        """Wait until its containers, all of them, are in these states; a unit is active before its container runs."""
        eventually_now(lambda: self.containers() == wanted, within_s=30, what=f"the containers are {wanted}")

    def inspect(self, name: str) -> Any:
        """Return what it says of a container."""
        return json.loads(self("container", "inspect", name))[0]

    @contextmanager
    def broken(self) -> Iterator[None]:
        """It finds no runtime meanwhile, as after an upgrade that took it away: each of its commands ends with 125."""
        self._machine.run("mv", RUNTIME, f"{RUNTIME}.away")
        try:
            assert self._machine.status("podman", "info") == 125
            yield
        finally:
            self._machine.run("mv", f"{RUNTIME}.away", RUNTIME)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The service behind its socket is stopped meanwhile; systemd leaves the socket's file, which refuses."""
        self._machine.run("systemctl", "stop", "podman.socket", "podman.service")
        try:
            yield
        finally:
            self._machine.run("systemctl", "start", "podman.socket")
