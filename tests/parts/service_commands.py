"""The service commands of `ops-agent` on a booted machine: asked, declared, and through an agent with a ceiling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.parts.booted_machine import PROGRAM, BootedMachine

CANARY = "hush-canary-4711-planted"
NATIVE = """name = "web"
enable = true
command = ["/bin/sleep", "1000"]
exposure_budget = 3.5
"""
BOXED = """name = "boxed"
enable = true
runtime = "podman"
image = "localhost/web:1"
command = ["/bin/sleep", "1000"]
[lifecycle]
shutdown_timeout_seconds = 3
"""


@contextmanager
def agent_there(machine: BootedMachine, capabilities: list[str]) -> Iterator[str]:
    """The machine's own agent with this ceiling for root; yields how it is reached."""
    config = '[agent]\nlisten = ["unix:/run/oa/agent.sock"]\nstate_dir = "/var/lib/oa"\n'
    config += f'[[grants]]\nprincipal = "unix:root"\ncapabilities = {json.dumps(capabilities)}\n'
    machine.write("/etc/ops-agent/config.toml", config)
    machine.run("chmod", "600", "/etc/ops-agent/config.toml")
    machine.run("mkdir", "-p", "/run/oa")
    words = ["--unit=oa", "--property=Type=notify", "--property=NotifyAccess=all"]
    machine.run("systemd-run", *words, PROGRAM, "--config", "/etc/ops-agent/config.toml")
    try:
        yield "agent+unix:///run/oa/agent.sock"
    finally:
        machine.run("systemctl", "stop", "oa", check=False)
        machine.run("systemctl", "reset-failed", "oa", check=False)


def ops(machine: BootedMachine, *words: str, rc: int | None = 0) -> dict[str, Any]:
    """Run a command of `ops-agent` there, and return its JSON."""
    done = machine.tried(PROGRAM, *words, "--json")
    assert rc is None or done.returncode == rc, (
        f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith("{") else {"stderr": done.stderr}


def declare(machine: BootedMachine, name: str, text: str) -> None:
    machine.write(f"/etc/ops-agent/services/{name}.toml", text)


def plant(machine: BootedMachine, name: str, text: str) -> str:
    """Write somebody else's unit, and let the manager read it; returns its path."""
    path = f"/etc/systemd/system/{name}.service"
    machine.write(path, text)
    machine.run("systemctl", "daemon-reload")
    return path
