"""A whole tailnet of the test's own: a control server, a relay and six nodes, all in namespaces without a way out.

| node | who it is | how |
|---|---|---|
| server | tag:server | a TUN device; agents run here |
| relay | tag:server | userspace networking; agents run here too |
| laptop | alice@example.com | userspace networking |
| runner | tag:ci and tag:deploy | userspace networking |
| stranger | bob@example.com, whom nobody grants anything | userspace networking |
| phone | alice@example.com | userspace networking; for what ends a node's membership |
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.parts.headscale import Headscale
from tests.parts.netns import Namespaces
from tests.parts.tailscaled import Tailscaled
from tests.parts.waiting import eventually_now

ALICE = "alice@example.com"
BOB = "bob@example.com"
TAGS = ("tag:server", "tag:ci", "tag:deploy", "tag:idle")
HOSTS = ("server", "relay")
KERNEL = ("server",)
NODES = ("server", "relay", "laptop", "runner", "stranger", "phone")


class Tailnet:
    """All of it; `with` starts and ends it."""

    def __init__(self, programs: Path) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="tailnet-")
        self.directory = Path(self._held.name)
        self.directory.chmod(0o711)
        self.namespaces = Namespaces(len(NODES))
        self.headscale = Headscale(programs, self.directory, TAGS)
        self.nodes = {
            name: Tailscaled(programs, self.directory, name, self.namespaces.name(number), kernel=name in KERNEL)
            for number, name in enumerate(NODES)
        }

    def __getitem__(self, name: str) -> Tailscaled:
        return self.nodes[name]

    def __enter__(self) -> Self:
        try:
            self.namespaces.__enter__()
            self.headscale.start(self.namespaces)
            alice, bob = self.headscale.user("alice", ALICE), self.headscale.user("bob", BOB)
            keys = {
                "server": self.headscale.key(tags=["tag:server"]),
                "relay": self.headscale.key(tags=["tag:server"]),
                "laptop": self.headscale.key(user=alice),
                "runner": self.headscale.key(tags=["tag:ci", "tag:deploy"]),
                "stranger": self.headscale.key(user=bob),
                "phone": self.headscale.key(user=alice),
            }
            with ThreadPoolExecutor(len(NODES)) as pool:
                list(pool.map(lambda name: self._join(name, keys[name]), NODES))
                list(pool.map(self._wait_for_peers, self.nodes.values()))
                ways = [(node, to) for node in self.nodes.values() for to in HOSTS if node.name != to]
                list(pool.map(lambda way: self._wait_for_way(*way), ways))
        except BaseException:
            self.end()
            raise
        return self

    def _join(self, name: str, key: str) -> None:
        self.nodes[name].start()
        self.nodes[name].up(key)

    def _wait_for_peers(self, node: Tailscaled) -> None:
        def complete() -> bool:
            return len(node.status().get("Peer") or {}) == len(NODES) - 1

        eventually_now(complete, within_s=30, what=f"{node.name} sees every other node")

    def _wait_for_way(self, node: Tailscaled, to: str) -> None:
        """The first packets to a peer may be lost while both find each other; tests begin after that."""
        eventually_now(lambda: node.reaches(to), within_s=40, what=f"{node.name} reaches {to}")

    def end(self) -> None:
        """End all of it."""
        for node in self.nodes.values():
            node.end()
        self.headscale.end()
        self.namespaces.__exit__(None, None, None)
        self._held.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
