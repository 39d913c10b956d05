"""Network namespaces of the test's own: a hub with one link to each, and no way out of any of them."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self


def _ip(*words: str, within: str | None = None) -> None:
    argv = ["ip", *(["-n", within] if within else []), *words]
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


def can_make_namespaces() -> bool:
    """Whether this process may make network namespaces with TUN devices in them."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        return False
    probe = ["unshare", "-n", "ip", "tuntap", "add", "dev", "probe0", "mode", "tun"]
    return subprocess.run(probe, check=False, capture_output=True, timeout=20).returncode == 0


class Namespaces:
    """`count` namespaces on one hub. The hub is 10.231.0.1, the others 10.231.0.2 and on; none has a default route."""

    def __init__(self, count: int) -> None:
        self._prefix = f"ops{secrets.token_hex(3)}"
        self._count = count
        self._made: list[str] = []

    @property
    def hub(self) -> str:
        """The hub's name."""
        return f"{self._prefix}-hub"

    def name(self, number: int) -> str:
        """The name of one, counted from 0."""
        return f"{self._prefix}-{number}"

    @staticmethod
    def inside(name: str, argv: Sequence[str]) -> list[str]:
        """What runs a program in one of them; the program keeps the pid that is started."""
        return ["nsenter", f"--net=/run/netns/{name}", "--", *argv]

    def __enter__(self) -> Self:
        try:
            self._make(self.hub)
            _ip("link", "add", "br0", "type", "bridge", within=self.hub)
            _ip("addr", "add", "10.231.0.1/24", "dev", "br0", within=self.hub)
            _ip("link", "set", "br0", "up", within=self.hub)
            for number in range(self._count):
                self._join(number)
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("link", "set", "lo", "up", within=name)

    def _join(self, number: int) -> None:
        name = self.name(number)
        self._make(name)
        _ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name, within=self.hub)
        _ip("link", "set", f"v{number}", "master", "br0", "up", within=self.hub)
        _ip("addr", "add", f"10.231.0.{number + 2}/24", "dev", "eth0", within=name)
        _ip("link", "set", "eth0", "up", within=name)

    def _remove(self) -> None:
        while self._made:
            subprocess.run(["ip", "netns", "del", self._made.pop()], check=False, capture_output=True, timeout=20)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
