"""Bottles started as a person starts them: the command line in a process of its own, on a home root of the test's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

if TYPE_CHECKING:
    from tests.parts.bottle_engine import BottleEngine

REPOSITORY = Path(__file__).parents[2]
TOKEN = "tok-REAL-0123456789abcdef"
HELD = "held-secret-77665544"
START_S = 90.0


def require_bottles() -> None:
    """Skip, or fail under REQUIRE_ALL, where bubblewrap or the egress gate's environment is missing."""
    require("bwrap", "needs bubblewrap (apt-get install bubblewrap)")
    require(egress_environment() / "bin" / "python", "needs the egress gate's environment (scripts/setup.sh)")


def egress_environment() -> Path:
    """Where the egress gate's environment is."""
    return Path(os.environ.get("BOTTLE_EGRESS_ENV", f"{sys.prefix}-egress"))


@dataclass
class Ended:
    """A bottle that ran to its end."""

    code: int
    stdout: str
    stderr: str
    identity: str

    @property
    def answers(self) -> dict[str, Any]:
        """The JSON object that a scripted agent prints."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


@dataclass
class Bottles:
    """A home root, an upstream, and the commands over them."""

    root: HomeRoot
    upstream: Upstream
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = REPOSITORY
    reaching_also: list[str] = field(default_factory=list)
    engine: BottleEngine | None = None

    def environ(self) -> dict[str, str]:
        """The launcher's environment."""
        found = {**os.environ, "BOT_BOTTLE_ROOT": str(self.root.path), "API_TOKEN": TOKEN, "MY_HELD": HELD, **self.env}
        found["PYTHONPATH"] = str(REPOSITORY)
        if self.engine is not None:
            found["DOCKER_HOST"] = self.engine.address
        return found

    @property
    def backend(self) -> str:
        """What these bottles are isolated by."""
        return "bwrap" if self.engine is None else "docker"

    def argv(self, *words: str) -> list[str]:
        """A `bottle` command."""
        return [sys.executable, "-m", "bottle", *words]

    def start_argv(self, agent: str, program: list[str], *options: str) -> list[str]:
        """`bottle start` of a scripted agent."""
        return self.argv("start", agent, "-y", "--backend", self.backend, *self.reaching(), *options, "--", *program)

    def reaching(self) -> list[str]:
        """The options by which egress finds and trusts the upstream."""
        found = []
        for name in self.upstream.names:
            found += ["--resolve", f"{name}={self.upstream.address}:{self.upstream.port}"]
        return [*found, *self.reaching_also, "--upstream-ca", str(self.upstream.ca)]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a `bottle` command to its end."""
        return subprocess.run(
            self.argv(*words),
            env=self.environ(),
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def run(self, agent: str, program: list[str], *options: str) -> Ended:
        """Run a scripted agent to its end."""
        done = subprocess.run(
            self.start_argv(agent, program, *options),
            env=self.environ(), cwd=self.cwd, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        print(done.returncode, done.stderr)  # shown where a test fails
        return Ended(done.returncode, done.stdout, done.stderr, identity_in(done.stderr))

    def script(self, agent: str, text: str, *options: str) -> Ended:
        """Run a Python script as the agent; `answers` is what it leaves in `found`."""
        return self.run(agent, ["/usr/bin/python3", "-c", SCRIPT_HEAD + text + "\nprint(json.dumps(found))"], *options)

    def begin(self, agent: str, program: list[str], *options: str) -> subprocess.Popen[str]:
        """Start a bottle and leave it running; returns once its agent runs."""
        launcher = subprocess.Popen(
            self.start_argv(agent, program, *options),
            env=self.environ(), cwd=self.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert launcher.stderr is not None
        end = time.monotonic() + START_S
        said = []
        while time.monotonic() < end:
            line = launcher.stderr.readline()
            said.append(line)
            if " is running" in line or not line:
                break
        assert " is running" in said[-1], "".join(said)
        return launcher

    def state(self, identity: str) -> Path:
        """A bottle's directory."""
        return self.root.path / "state" / identity

    def audit(self, identity: str) -> list[dict[str, Any]]:
        """Egress's decisions in a bottle's audit."""
        lines = (self.state(identity) / "audit.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["listener"] == "egress"]


SCRIPT_HEAD = (Path(__file__).parent / "bottle_inside.py").read_text("utf-8") + "\nimport json\nfound = {}\n"


def identity_in(stderr: str) -> str:
    """The identity that a launcher names."""
    for line in stderr.splitlines():
        if line.endswith(" is running"):
            return line.split()[1]
    return ""


def processes_with(text: bytes) -> list[int]:
    """Every process whose argv or environment holds this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            try:
                if text in (entry / name).read_bytes():
                    found.append(int(entry.name))
                    break
            except OSError:  # it ended, or it is not ours to read
                continue
    return found


def gone(text: bytes, within_s: float = 10.0) -> None:
    """Wait until no process carries this text."""
    eventually_now(lambda: not processes_with(text), within_s=within_s, what=f"the processes of {text!r} are gone")


def written_with(directory: Path, text: bytes) -> list[Path]:
    """Every file below a directory that holds this text."""
    return [path for path in directory.rglob("*") if path.is_file() and text in path.read_bytes()]


def gate_peak(identity: str) -> int:
    """The most memory that a running bottle's egress gate had, in bytes; 0 where there is no such process."""
    ours = set(processes_with(f"BOTTLE_IDENTITY={identity}".encode()))
    found = [0]
    for process in ours & set(processes_with(b"bottle.sidecars.egress.serve\x00")):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        found += [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")]
    return max(found)
