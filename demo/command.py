"""`opsexec` as a person uses it: a process of its own, shown with its command line, its output shown as it comes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

DEADLINE_S = 60.0
"""Seconds after which a command that hangs is killed; its exit code is then no claim's."""

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


class Done(NamedTuple):
    """What a command said (stdout and stderr as they came) and its exit code."""

    exit_code: int
    said: str

    @property
    def run(self) -> str:
        """The id of the runbook run it printed; raises ValueError when it printed none."""
        found = RUN_ID.search(self.said)
        if found is None:
            raise ValueError(f"no run id in: {self.said[:200]}")
        return found[0]

    def line(self, *parts: str) -> str:
        """Return the first line that holds all the parts, empty when none does."""
        return next((line for line in self.said.splitlines() if all(part in line for part in parts)), "")

    def json(self) -> Any:
        """Return the JSON object it printed; raises ValueError."""
        return json.loads(self.said)


class Opsexec:
    """Runs the command line with this environment; `heard` is all that it ever printed."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = dict(environment)
        self._directory = directory
        self.heard = ""

    def __call__(self, *words: str, quiet: bool = False) -> Done:
        """Run one command to its end. `quiet`: its output is for the demo to read, not for people."""
        print(f"\n  $ {shlex.join(['opsexec', *words])}", flush=True)
        script = Path(sys.executable).with_name("opsexec")
        program = [str(script)] if script.exists() else [sys.executable, "-m", "opsexec.cli"]
        said = []
        with subprocess.Popen(
            [*program, *words],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            deadline = threading.Timer(DEADLINE_S, process.kill)
            deadline.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said.append(line)
                    if not quiet:
                        print(f"    {line.rstrip()}", flush=True)
            except BaseException:  # Ctrl-C as well: leaving the block waits for the process
                process.terminate()
                raise
            finally:
                deadline.cancel()
        text = "".join(said)
        self.heard += text
        print(f"    -> exit {process.returncode}", flush=True)
        return Done(process.returncode, text)
