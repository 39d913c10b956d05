"""What the daemon is told on the first line of its stdin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("route", "pipelock", "capability")


@dataclass(frozen=True)
class SuperviseConfig:
    """`socket`: where it listens. `door`: `host:port` by which the agent comes there. `wait_s`: of one call.

    `offered`: which kinds of change may be proposed here. `routes`: what the agent is told of its egress.
    """

    socket: Path
    door: str
    wait_s: float
    offered: tuple[str, ...]
    routes: tuple[dict[str, Any], ...]


def read_config(line: bytes) -> SuperviseConfig:
    """Return the configuration; raises ValueError for one of another shape."""
    data = json.loads(line)
    if not isinstance(data, dict) or set(data) != {"socket", "door", "wait_s", "offered", "routes"}:
        raise ValueError("the configuration has other keys")
    wait_s = float(data["wait_s"])
    if not 0 < wait_s <= 3600 or any(kind not in KINDS for kind in data["offered"]):
        raise ValueError("the configuration has a value out of range")
    return SuperviseConfig(
        Path(data["socket"]), str(data["door"]), wait_s, tuple(data["offered"]), tuple(data["routes"])
    )
