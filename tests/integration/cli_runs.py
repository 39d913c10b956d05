"""`opsexec` as a person starts it: a process of its own, its own state directory, a real sshd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.parts.process_tree import processes_with_argument
from tests.parts.sshd import Endpoint
from tests.parts.waiting import eventually_now

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 30.0
T = TypeVar("T")


def login(endpoint: Endpoint) -> list[str]:
    """The options that reach an endpoint and read no configuration of the machine's own."""
    return [
        "--identity",
        str(endpoint.identity),
        "--known-hosts",
        str(endpoint.known_hosts),
        "-F",
        "/dev/null",
    ]


class Running(subprocess.Popen[bytes]):
    """A command under way; killed when the block that holds it is left, however that happens."""

    def __exit__(self, *error: object) -> None:
        self.kill()
        super().__exit__(*error)  # type: ignore[arg-type]  # passed on as it came


class Cli:
    """Runs `opsexec` with an audit log and state directory under `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.audit = home / "audit.jsonl"
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "OPSEXEC_AUDIT": str(self.audit),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "TERM": "xterm",
        }

    def argv(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "opsexec.cli", *map(str, words)]

    def run(self, *words: object, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run to the end; no stdin means /dev/null."""
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(*words, stdin=source, env={**self.env, **env}) as running:
            out, said = running.communicate(stdin, timeout=DEADLINE_S)
        return subprocess.CompletedProcess(running.args, running.returncode, out, said)

    def start(self, *words: object, stdin: int = subprocess.DEVNULL, env: dict[str, str] | None = None) -> Running:
        """Start it with pipes and leave it running."""
        return Running(
            self.argv(*words),
            cwd=self.home,
            env=env or self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def error_lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What stderr says, asserting that it is no traceback."""
    text = done.stderr.decode()
    assert "Traceback" not in text, text
    return text.splitlines()


def wait_for(probe: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
    """Wait until a probe answers something true; raises TimeoutError."""
    return eventually_now(probe, within_s=deadline_s, what=what)


def unique_sleep(counter: Iterator[int]) -> str:
    """A number of seconds that no other process sleeps: it is how a program is found again."""
    return f"{86400 + os.getpid()}.{next(counter)}"


def sleeping(seconds: str) -> list[int]:
    """Pids of programs started as `sleep SECONDS`; the command lines that ask for it don't count."""
    found = []
    for pid in processes_with_argument(seconds):
        try:
            argv = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv[0].endswith(b"sleep"):
            found.append(pid)
    return found
