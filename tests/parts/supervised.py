"""A bottle with supervise whose agent does what a test tells it, and the operator's commands beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottle.operator.deciding import reject
from bottle.operator.shown import Shown, waiting
from bottle.state import State
from tests.conftest import require
from tests.parts.bottle_running import Bottles
from tests.parts.waiting import eventually_now

INSIDE = (Path(__file__).parent / "supervise_inside.py").read_text("utf-8")
ASK_S = 90.0
STOP_S = 20.0


@contextmanager
def host_tree() -> Iterator[Path]:
    """A directory of programs below /opt, of the test's own, with the program `only-here`."""
    require(os.access("/opt", os.W_OK), "needs a /opt that may be written")
    place = Path("/opt") / f"bottle-test-{uuid.uuid4().hex[:12]}"
    (place / "bin").mkdir(parents=True)
    program = place / "bin" / "only-here"
    program.write_text("#!/bin/sh\necho from the tree\n")
    program.chmod(0o755)
    yield place
    shutil.rmtree(place)


@dataclass
class Supervised:
    """One running bottle. `kept_at`: where its home is, when that isn't its state directory."""

    bottles: Bottles
    identity: str
    launcher: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    kept_at: Path | None = None

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._follow, daemon=True)

    @classmethod
    def start(cls, bottles: Bottles, agent: str = "worker") -> Supervised:
        """Start it, and stay with what its launcher says."""
        launcher = bottles.begin(agent, ["/usr/bin/python3", "-c", INSIDE, "serve"])
        return cls._followed(bottles, launcher)

    @classmethod
    def resumed(cls, bottles: Bottles, identity: str) -> Supervised:
        """Resume it."""
        launcher = subprocess.Popen(
            bottles.argv("resume", identity, "-y", *bottles.reaching()),
            env=bottles.environ(), cwd=bottles.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        found = cls._followed(bottles, launcher, identity)
        eventually_now(lambda: f"{identity} is running" in found.screen, within_s=40, what="it is resumed")
        return found

    @classmethod
    def _followed(cls, bottles: Bottles, launcher: subprocess.Popen[str], identity: str = "") -> Supervised:
        if not identity:
            running = json.loads(bottles.command("list", "--json").stdout)["bottles"]
            identity = max(running, key=lambda each: each["started_at"])["identity"]
        found = cls(bottles, identity, launcher)
        found._reader.start()
        return found

    def _follow(self) -> None:
        assert self.launcher.stderr is not None
        for line in self.launcher.stderr:
            self.said.append(line)

    @property
    def screen(self) -> str:
        """What the launcher told its operator."""
        return "".join(self.said)

    @property
    def state(self) -> Path:
        """Its directory."""
        return self.bottles.state(self.identity)

    @property
    def home(self) -> Path:
        """The agent's home."""
        return (self.kept_at or self.state) / "home"

    @property
    def queue(self) -> Path:
        """Where its proposals are."""
        return self.state / "supervise"

    def begin(self, script: str) -> int:
        """Give the agent something to do."""
        home = self.home
        number = len(list(home.glob("ask-*.py"))) + 1
        part = home / f"part-{number:04d}"
        part.write_text(script)
        part.chmod(0o644)
        part.rename(home / f"ask-{number:04d}.py")
        return number

    def end(self, number: int) -> dict[str, Any]:
        """Wait until it is done; what it left in `found`."""
        answer = self.home / f"answer-{number:04d}.json"
        eventually_now(answer.exists, within_s=ASK_S, what=f"the agent has done {number}: {self.screen[-2000:]}")
        said = json.loads(answer.read_text())
        assert "error" not in said, said["error"]
        found: dict[str, Any] = said["found"]
        return found

    def inside(self, script: str) -> dict[str, Any]:
        """Let the agent do something, to its end."""
        return self.end(self.begin(script))

    def proposals(self) -> list[dict[str, Any]]:
        """What waits in this bottle, as the command would tell it."""
        return [each.rendered() for each in self._waiting()]

    def _waiting(self) -> list[Shown]:
        return [each for each in waiting(State(self.bottles.root.path)).waiting if each.bottle == self.identity]

    def proposed(self, script: str) -> dict[str, Any]:
        """Let the agent propose one thing, and return it as it waits."""
        before = {each["number"] for each in self.proposals()}
        number = self.begin(script)
        new = eventually_now(
            lambda: [each for each in self.kept() if each["status"] == "pending" and each["number"] not in before],
            within_s=30, what=f"a proposal waits: {self.screen[-2000:]}",
        )  # fmt: skip
        self.end(number)
        return next(each for each in self.proposals() if each["number"] == new[0]["number"])

    def kept(self) -> list[dict[str, Any]]:
        """Every proposal on the operator's disk."""
        return [json.loads(path.read_text()) for path in sorted((self.queue / "proposals").glob("*.json"))]

    def policy(self) -> dict[str, Any]:
        """The live policy, as the launcher keeps it."""
        found: dict[str, Any] = json.loads((self.queue / "policy.json").read_text())
        return found

    def table(self) -> list[dict[str, Any]]:
        """What egress enforces."""
        found: list[dict[str, Any]] = json.loads((self.state / "bundle" / "routes.json").read_text())
        return found

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The audit's lines about steps of this type."""
        lines = (self.state / "audit.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if (each["step"] or {}).get("type") == kind]

    def clear(self) -> None:
        """Reject whatever waits."""
        for each in self._waiting():
            reject(State(self.bottles.root.path), each, "")

    def stop(self) -> None:
        """End it."""
        self.launcher.terminate()
        self.launcher.wait(STOP_S)
        self._reader.join(STOP_S)
        for stream in (self.launcher.stdout, self.launcher.stderr):
            if stream is not None:
                stream.close()


def keep_the_decision(bottle: Supervised, name: str) -> dict[str, object]:
    """Approve, and return what the command handed to the launcher: the digests of what was shown."""
    shown = next(each for each in bottle.proposals() if each["id"] == name)
    done = bottle.bottles.command("approve", name, "--accept-risks")
    assert done.returncode == 0, done.stderr
    record = [each for each in bottle.records("decision") if each["step"]["proposal"] == shown["number"]][-1]
    step = record["step"]
    return {
        "number": shown["number"], "approve": True, "candidate": step["digest"], "policy": step["policy"],
        "reason": "", "body": None,
    }  # fmt: skip


def decide(bottle: Supervised, decision: dict[str, object], where: Path | None = None) -> dict[str, object]:
    """Write a decision as no command would, and return what came of it."""
    queue = where or bottle.queue
    nonce = os.urandom(16).hex()
    part = queue / "decisions" / f".{nonce}"
    part.write_text(json.dumps(decision))
    part.rename(queue / "decisions" / f"{nonce}.json")
    outcome = queue / "outcomes" / f"{nonce}.json"
    eventually_now(outcome.exists, within_s=20, what="an outcome")
    found: dict[str, object] = json.loads(outcome.read_text())
    return found


def digest_of(bottle: Supervised, number: int) -> str:
    """The hash of a proposal\'s change, as the audit has it."""
    found: str = next(
        each["step"]["digest"] for each in bottle.records("proposal") if each["step"].get("proposal") == number
    )
    return found
