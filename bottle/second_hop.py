"""The second hop's names and places, and what its daemon is told. Pure; `pipelock` says how it is configured."""

from __future__ import annotations

from typing import Any

DAEMON = "pipelock"
PROGRAM = "/run/bundle/pipelock"
FILE = "pipelock.json"
WORK = "/tmp/pipelock"
ADDRESS = f"{WORK}/address"
TRUST = f"{WORK}/trust.pem"


def configuration(config_file: str, trust: str) -> dict[str, Any]:
    """Return what the daemon reads on its stdin. No secret is in it."""
    return {"program": PROGRAM, "config": config_file, "trust": trust, "work_dir": WORK}
