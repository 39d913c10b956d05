"""The gate as a bottle on docker runs it: git in the agent's container, the gate in its bundle, a network between them.

The upstream's sshd is reached from the bundle's outer network alone, at an address that stands for one of the internet.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bottle.plan import BUNDLE, GIT_NATIVE_PORT, GIT_PORT
from tests.parts.bottle_backends import Scene
from tests.parts.bottle_engine import OUTSIDE, BottleEngine
from tests.parts.bottle_running import processes_with
from tests.parts.dockerd import program
from tests.parts.git_gate import GitGate, Work
from tests.parts.lonely_internet import inside
from tests.parts.relay import Relay
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

GUEST = Path("/home/agent")
ASKING = {"archive", "clone", "fetch", "ls-remote", "push"}
STOP_S = 90.0


class ContainedWork(Work):
    """A clone in the agent's home. What asks the gate for something runs in the agent's container, as the agent."""

    def __init__(self, path: Path, gate: ContainedGate) -> None:
        super().__init__(path, gate.home)
        self._gate = gate
        # On the host it is root who commits in a directory of the agent's.
        owned = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        self.env = {**self.env, **owned}

    def run(self, *words: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run git and return how it ended: in the container, unless it stays on its own disk."""
        if not ASKING.intersection(words) or any(word.startswith(("/", "file:")) for word in words):
            return super().run(*words, stdin=stdin)
        variables = [f"--env={name}={value}" for name, value in self.env.items() if name.startswith("GIT_")]
        return self._gate.beside(self.path, [*variables], ["git", *words], stdin)


class ContainedGate(GitGate):
    """The gate of one running bottle, in front of the same upstreams."""

    def __init__(self, sshd: Sshd, stage: Scene) -> None:
        super().__init__(sshd)
        assert stage.engine is not None
        self.engine: BottleEngine = stage.engine
        self._bottles = stage.bottles(self.directory / "root")
        self._bottles.env["HOME"] = str(self.home)
        self._relay: Relay | None = None
        self._launcher: subprocess.Popen[str] | None = None
        self._told: list[str] = []
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self.identity = ""

    def start(self) -> ContainedGate:
        """Start a bottle that declares the repositories."""
        at = urlsplit(self.sshd.url())
        self._relay = Relay(self.engine.within, OUTSIDE, (at.hostname or "", at.port or 22)).__enter__()
        repositories = {}
        for name, declared in self.repositories.items():
            key = self.directory / f"{name}.key"
            key.touch(0o600)
            key.write_text(declared["identity"])
            url = f"ssh://{at.username}@{OUTSIDE}:{self._relay.port}{urlsplit(declared['url']).path}"
            repositories[name] = {**declared, "url": url, "identity": str(key)}
        root = self._bottles.root
        provider = "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n"
        root.bottle("dev", f"{provider}git-gate:\n  repos: {json.dumps(repositories)}\n")
        root.agent("worker", "bottle: dev\n")
        self._launcher = self._bottles.begin("worker", ["/bin/sleep", "infinity"])
        self._reader.start()
        (state,) = (root.path / "state").iterdir()
        self.identity = state.name
        self._works.mkdir()
        return self

    def stop(self) -> None:
        """End the bottle, which takes its containers and networks away, and remove what it left."""
        try:
            if self._launcher is not None:
                self._launcher.terminate()
                self._launcher.wait(STOP_S)
                self._reader.join(STOP_S)
                for pipe in (self._launcher.stdout, self._launcher.stderr):
                    if pipe is not None:
                        pipe.close()
                label = f"bottle.identity={self.identity}"
                assert self.engine.labelled("ps", label) == self.engine.labelled("network", label) == []
        finally:
            if self._relay is not None:
                self._relay.__exit__(None, None, None)
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the daemon alone, in its bundle."""
        mine = set(processes_with(b"bottle.sidecars.git_gate.serve\x00"))
        (daemon,) = mine & set(processes_with(f"BOTTLE_IDENTITY={self.identity}".encode()))
        os.kill(daemon, signal.SIGKILL)
        eventually_now(lambda: not Path(f"/proc/{daemon}").exists(), within_s=10, what="the daemon is gone")

    def said(self, event: str) -> list[dict[str, Any]]:
        """Every decision on a client that the audit holds."""
        assert event == "git", "the audit keeps its steps in another form"
        lines = (self._state / "audit.jsonl").read_text("utf-8").split("\n")
        records = map(json.loads, lines[:-1])  # behind the last line break is what is being written
        return [{**each["step"], **each} for each in records if (each["step"] or {}).get("type") == event]

    def written(self) -> str:
        """Everything that was written about it: its log, the audit, and what the operator was told."""
        files = [(self._state / name).read_text("utf-8") for name in ("bundle.log", "audit.jsonl")]
        return "".join([*files, *self._told])

    def mirror(self, name: str) -> Path:
        """Its own copy of a repository, in the bundle's memory."""
        return self._bundle / "tmp" / "git" / "repositories" / name / "mirror.git"

    @property
    def reach(self) -> Path:
        """A directory that it could write to, by the name that it has there."""
        return Path("/tmp")

    def made(self, path: Path) -> bool:
        """Whether something is there at last, at a path of its own."""
        return (self._bundle / path.relative_to("/")).exists()

    def url(self, name: str) -> str:
        """Where a client in the container reaches a repository."""
        return f"http://{BUNDLE}:{GIT_PORT}/{name}"

    def native_url(self, name: str) -> str:
        """Where it reaches it by git's own protocol."""
        return f"git://{BUNDLE}/{name}"

    def fresh(self, name: str) -> Work:
        """An empty repository in the agent's home; before the start, one outside of it."""
        if not self.identity:
            return super().fresh(name)
        path = self._works / name
        path.mkdir()
        work = ContainedWork(path, self)
        work.git("init", "-q", "-b", "main")
        return work

    def clone(self, name: str, *options: str, native: bool = False) -> Work:
        """A clone through the gate; `native`: by git's own protocol."""
        self._clones += 1
        path = self._works / f"{name}-{self._clones}"
        url = self.native_url(name) if native else self.url(name)
        ContainedWork(self._works, self).git("clone", "-q", *options, url, path.name)
        return ContainedWork(path, self)

    def connected(self, *, native: bool = False) -> socket.socket:
        """A bare connection from the agent's own network to one of its doors."""
        (bundle,) = self.engine.inspect(f"bottle-{self.identity}-bundle")
        address = bundle["NetworkSettings"]["Networks"][f"bottle-{self.identity}-inner"]["IPAddress"]
        port = GIT_NATIVE_PORT if native else GIT_PORT
        network = f"/proc/{self._pid('agent')}/ns/net"
        return inside(network, lambda: socket.create_connection((address, port), 10))

    def beside(
        self, path: Path, options: list[str], argv: list[str], stdin: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the agent's container, in a directory of its home that the host may have written in."""
        home = self._state / "home"
        owner = home.stat()
        for place, directories, files in os.walk(path):
            for name in (".", *directories, *files):
                with contextlib.suppress(FileNotFoundError):  # a git that tidies up
                    os.lchown(f"{place}/{name}", owner.st_uid, owner.st_gid)
        within = f"--workdir={GUEST / path.relative_to(home)}"
        container = f"bottle-{self.identity}-agent"
        return subprocess.run(
            [program("docker") or "docker", "exec", "--interactive", within, *options, container, *argv],
            env={**os.environ, "DOCKER_HOST": self.engine.address},
            input=stdin or b"", capture_output=True, timeout=50, check=False,
        )  # fmt: skip

    @property
    def _state(self) -> Path:
        return self._bottles.state(self.identity)

    @property
    def _works(self) -> Path:
        return self._state / "home" / "works"

    @property
    def _bundle(self) -> Path:
        return Path(f"/proc/{self._pid('bundle')}/root")

    def _pid(self, which: str) -> int:
        (container,) = self.engine.inspect(f"bottle-{self.identity}-{which}")
        return int(container["State"]["Pid"])

    def _follow(self) -> None:
        assert self._launcher is not None
        assert self._launcher.stderr is not None
        for line in self._launcher.stderr:
            self._told.append(line)


@contextlib.contextmanager
def contained_gate(
    sshd: Sshd, stage: Scene, *names: str, prepare: Callable[[GitGate], object] | None = None
) -> Iterator[ContainedGate]:
    """A running bottle with these repositories behind its gate, each with a first commit on main."""
    made = ContainedGate(sshd, stage)
    try:
        for name in names:
            made.declare(name)
            made.seed(name)
        if prepare is not None:
            prepare(made)
        yield made.start()
    finally:
        made.stop()
