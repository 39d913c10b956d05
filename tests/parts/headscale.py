"""A real headscale, with a DERP relay of its own, in the hub of the test's namespaces."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.parts.netns import Namespaces
from tests.parts.waiting import eventually_now

URL = "http://10.231.0.1:8080"
SUFFIX = "tail.test"

CONFIG = """\
server_url: {url}
listen_addr: 10.231.0.1:8080
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:50443
noise: {{private_key_path: {directory}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp:
  server:
    enabled: true
    region_id: 999
    region_code: test
    region_name: test
    verify_clients: false
    stun_listen_addr: 10.231.0.1:3478
    private_key_path: {directory}/derp.key
    automatically_add_embedded_derp_region: true
    ipv4: 10.231.0.1
  urls: []
  paths: []
  auto_update_enabled: false
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {directory}/db.sqlite, write_ahead_log: true}}}}
log: {{level: info, format: text}}
policy: {{mode: file, path: {directory}/policy.json}}
dns: {{magic_dns: true, base_domain: {suffix}, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {directory}/headscale.sock
unix_socket_permission: "0700"
logtail: {{enabled: false}}
"""


class Headscale:
    """One control server. Everybody may reach everybody: who may do what is for agents to say."""

    def __init__(self, programs: Path, directory: Path, tags: Sequence[str]) -> None:
        self._program = str(programs / "headscale")
        self._directory = directory
        self._config = directory / "headscale.yaml"
        self._config.write_text(CONFIG.format(url=URL, directory=directory, suffix=SUFFIX))
        policy = {
            "tagOwners": {tag: ["boss@"] for tag in tags},
            "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        }
        (directory / "policy.json").write_text(json.dumps(policy))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, namespaces: Namespaces) -> None:
        """Start it, and wait until it answers."""
        argv = namespaces.inside(namespaces.hub, [self._program, "-c", str(self._config), "serve"])
        with (self._directory / "headscale.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self._directory, env=_environment())
        eventually_now(self._answers, within_s=30, what="headscale answers")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"headscale ended: {(self._directory / 'headscale.log').read_text()[-2000:]}")
        return self._run("users", "list").returncode == 0

    def user(self, name: str, email: str) -> int:
        """Make a user and return their id."""
        return int(self.ask("users", "create", name, "--email", email)["id"])

    def user_id(self, name: str) -> int:
        """The id of a user by their name."""
        (found,) = [each["id"] for each in self.ask("users", "list") if each["name"] == name]
        return int(found)

    def key(self, *, user: int | None = None, tags: Sequence[str] = ()) -> str:
        """Make a key that brings a node in, as a user's or as a tagged one."""
        whose = ["--user", str(user)] if user is not None else ["--tags", ",".join(tags)]
        return str(self.ask("preauthkeys", "create", *whose, "--reusable", "--expiration", "1h")["key"])

    def node(self, name: str) -> int:
        """The id of a node by its name."""
        (found,) = [each["id"] for each in self.ask("nodes", "list") if each["given_name"] == name]
        return int(found)

    def retag(self, name: str, *tags: str) -> None:
        """Give a tagged node other tags."""
        self.ask("nodes", "tag", "--identifier", str(self.node(name)), "--tags", ",".join(tags))

    def expire(self, name: str) -> None:
        """Let a node's key expire now."""
        self.ask("nodes", "expire", "--identifier", str(self.node(name)))

    def ask(self, *words: str) -> Any:
        """What its command line answers, as JSON."""
        done = self._run(*words, "--output", "json")
        if done.returncode != 0:
            raise AssertionError(f"headscale {' '.join(words)}: {done.stderr.decode()}{done.stdout.decode()}")
        return json.loads(done.stdout)

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        argv = [self._program, "-c", str(self._config), *words]
        return subprocess.run(argv, check=False, capture_output=True, timeout=20, env=_environment())

    def end(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


def _environment() -> dict[str, str]:
    """Without anybody's proxy: there is nowhere to go."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
