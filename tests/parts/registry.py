"""A real image registry on loopback, and a credential helper of the test's own that counts its calls."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.free_port import free_port
from tests.parts.waiting import eventually_now

CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
HELPER = """#!/bin/sh
echo "$1" >> "{calls}"
cat >/dev/null
printf '{{"ServerURL":"x","Username":"u","Secret":"hush-canary"}}'
"""


def missing() -> str | None:
    """Why there can be none here; None when there can."""
    return None if shutil.which("docker-registry") else "no docker-registry program (apt-get install docker-registry)"


@contextmanager
def registry(home: Path) -> Iterator[str]:
    """A registry; yields its host:port."""
    port = free_port()
    config = home / "registry.yml"
    config.write_text(CONFIG.format(root=home / "registry", port=port))
    log = (home / "registry.log").open("wb")
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        eventually_now(lambda: _answers(port) or process.poll() is not None, within_s=20, what="the registry answers")
        if process.poll() is not None:
            raise RuntimeError((home / "registry.log").read_text()[-500:])
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class CountingHelper:
    """`docker-credential-counting` in a directory for PATH, named for one registry by a home's docker config."""

    def __init__(self, home: Path, host: str) -> None:
        self.bin = home / "bin"
        self.bin.mkdir()
        self._calls = home / "calls"
        program = self.bin / "docker-credential-counting"
        program.write_text(HELPER.format(calls=self._calls))
        program.chmod(0o755)
        self.home = home / "home"
        (self.home / ".docker").mkdir(parents=True)
        (self.home / ".docker/config.json").write_text(json.dumps({"credHelpers": {host: "counting"}}))

    def take(self) -> int:
        """Return how often it was called since the last time this was asked."""
        text = self._calls.read_text() if self._calls.exists() else ""
        self._calls.write_text("")
        return len(text.splitlines())
