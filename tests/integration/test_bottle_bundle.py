"""The supervisor of a real bundle: PID 1, reaps, is told by signals and words; a gate that dies closes the way out."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_backends import BACKENDS, scene
from tests.parts.bottle_running import SCRIPT_HEAD, Bottles, gone
from tests.parts.waiting import eventually_now

BOTTLE = "egress:\n  routes:\n    - host: api.test\n      pipelock: {ssrf_ip_allowlist: [ADDRESS]}\n"
ASKS = """
import sys, time
while True:
    try: print(urllib.request.urlopen('https://api.test/', timeout=2).status, flush=True)
    except OSError: print(0, flush=True)
    time.sleep(0.05)
"""


@dataclass
class Living:
    """A bottle whose agent asks the upstream again and again. `said`, `told`: its words, and its launcher's."""

    bottles: Bottles
    identity: str
    launcher: subprocess.Popen[str]
    said: list[str]
    told: list[str]

    def log(self) -> str:
        """What the bundle said."""
        return (self.bottles.state(self.identity) / "bundle.log").read_text()

    def process(self, words: str) -> int:
        """The pid, on the host, of this bundle's process with these words in its argv."""
        mark = f"BOTTLE_IDENTITY={self.identity}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ, argv = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
                except OSError:  # it ended
                    continue
                if mark in environ and words.encode() in argv:
                    return int(entry.name)
        raise LookupError(words)

    def hears(self, status: str, within_s: float = 20.0) -> None:
        """Wait until the agent gets this status, from now on."""
        at = len(self.said)
        eventually_now(lambda: status in self.said[at:], within_s=within_s, what=f"the agent gets a {status}")


@pytest.fixture
def living(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Living]:
    backend = getattr(request, "param", BACKENDS[0])
    with scene(request, backend, tmp_path, ("api.test",)) as stage:
        bottles = stage.bottles(tmp_path / "root", dev=BOTTLE)
        bottles.root.agent("worker", "bottle: dev\n")
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", SCRIPT_HEAD + ASKS])
        (directory,) = (bottles.root.path / "state").iterdir()
        made = Living(bottles, directory.name, launcher, [], [])
        readers = [
            threading.Thread(target=lambda stream=stream, into=into: into.extend(_lines(stream, into)))
            for stream, into in ((launcher.stdout, made.said), (launcher.stderr, made.told))
        ]
        for reader in readers:
            reader.start()
        try:
            yield made
        finally:
            if launcher.poll() is None:
                launcher.terminate()
            launcher.wait(timeout=60)
            for reader in readers:
                reader.join(10)
            for stream in (launcher.stdout, launcher.stderr):
                assert stream is not None
                stream.close()


def _lines(stream: object, into: list[str]) -> list[str]:
    for line in stream:  # type: ignore[attr-defined] # a text stream
        into.append(line.strip())
    return []


def numbers_inside(pid: int) -> list[str]:
    """A process's number in each of its pid namespaces, the host's first (proc(5), NSpid)."""
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("NSpid")]
    return line.split()[1:]


def test_the_supervisor_is_pid_1_and_reaps_who_is_orphaned_there(living: Living) -> None:
    init = living.process("bottle.sidecars.init")
    assert numbers_inside(init)[-1] == "1"
    require(shutil.which("nsenter") is not None and os.geteuid() == 0, "needs root and nsenter")
    # A process in there whose parent ends at once; it ends a moment later, and nobody else would take it.
    subprocess.run(
        ["nsenter", "-t", str(init), "-U", "-p", "-m", "--preserve-credentials", "/bin/sh", "-c", "sleep 3 & exit 0"],
        check=True, timeout=20,
    )  # fmt: skip
    children = Path(f"/proc/{init}/task/{init}/children")

    def names() -> list[str]:
        found = []
        for pid in children.read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
                found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        return found

    eventually_now(lambda: "sleep" in names(), within_s=20, what="the orphan is the supervisor's")
    eventually_now(lambda: "sleep" not in names(), within_s=30, what="the orphan is reaped")
    living.hears("200")


@pytest.mark.timeout(240)  # a first test may start an engine too, a last one take it away
@pytest.mark.parametrize("living", BACKENDS, indirect=True)
def test_px30_lc6_a_dead_gate_is_told_closed_and_comes_back_with_the_same_ca(living: Living) -> None:
    """No open moment: while it is gone nothing reaches the upstream, and the agent trusts what comes back."""
    living.hears("200")
    os.kill(living.process("egress.serve"), signal.SIGKILL)
    living.hears("0")
    eventually_now(
        lambda: any("bottle restart" in line for line in living.told), within_s=10, what="the operator is told"
    )
    assert "init | egress ended unexpectedly (-9); the others go on" in living.log()
    before = len(living.bottles.upstream.requests)
    mark = len(living.said)
    eventually_now(lambda: len(living.said) > mark + 3, within_s=20, what="the agent has tried again")
    assert set(living.said[mark:]) == {"0"}
    assert len(living.bottles.upstream.requests) == before
    assert living.launcher.poll() is None
    done = living.bottles.command("restart", living.identity, "egress")
    assert done.returncode == 0, done.stderr
    living.hears("200")  # by the CA that the guest has trusted since its start
    assert living.bottles.command("restart", living.identity, "nonsense").returncode == 2


def test_px30_a_gate_without_descriptors_lets_nothing_past(living: Living) -> None:
    living.hears("200")
    pid = living.process("egress.serve")
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    living.hears("0")
    before = len(living.bottles.upstream.requests)
    mark = len(living.said)
    eventually_now(lambda: len(living.said) > mark + 2, within_s=60, what="the agent has tried again")
    assert "200" not in living.said[mark:]
    assert len(living.bottles.upstream.requests) == before
    assert living.bottles.command("restart", living.identity, "egress").returncode == 0
    living.hears("200")


def test_signals_say_what_words_say_and_many_are_one(living: Living) -> None:
    init = living.process("bottle.sidecars.init")
    os.kill(init, signal.SIGHUP)
    eventually_now(lambda: '"event": "reload"' in living.log().replace('":"', '": "'), within_s=10, what="it reloads")
    os.kill(init, signal.SIGSTOP)
    for _ in range(20):
        os.kill(init, signal.SIGUSR1)
    os.kill(init, signal.SIGCONT)
    said = "nothing to do for 'restart pipelock'"  # this bottle has none
    eventually_now(lambda: said in living.log(), within_s=10, what="it took the signal")
    living.hears("200")
    assert living.log().count(said) <= 2
    os.kill(init, signal.SIGTERM)
    assert living.launcher.wait(timeout=30) == 1
    eventually_now(lambda: any("bundle ended" in line for line in living.told), within_s=20, what="the end is told")
    gone(living.identity.encode())


def test_a_stopped_supervisor_is_ended_with_its_bottle(living: Living) -> None:
    """A supervisor that hangs can't hold a bottle: the launcher's end is the kernel's, not its own."""
    living.hears("200")
    os.kill(living.process("bottle.sidecars.init"), signal.SIGSTOP)
    began = time.monotonic()
    living.launcher.terminate()
    assert living.launcher.wait(timeout=30) == 143
    assert time.monotonic() - began < 25
    gone(living.identity.encode())
