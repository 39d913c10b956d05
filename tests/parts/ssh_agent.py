"""A real ssh-agent for the time of a test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.parts.waiting import eventually_now


@contextlib.contextmanager
def ssh_agent(*keys: Path, passphrase: str = "") -> Iterator[Path]:
    """An agent that holds these private keys; gives its socket."""
    with tempfile.TemporaryDirectory(prefix="agent-") as name:
        socket = Path(name, "socket")
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        try:
            eventually_now(socket.exists, within_s=20, what="the agent's socket")
            ask = Path(name, "ask")
            ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
            ask.chmod(0o700)
            asking = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": str(socket)}
            for key in keys:
                subprocess.run(
                    ["ssh-add", "-q", str(key)],
                    check=True,
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | asking,
                )
            yield socket
        finally:
            agent.terminate()
            agent.wait(5)


def make_key(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    """A new private key, its public half beside it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)],
        check=True,
        capture_output=True,
    )
    return path
