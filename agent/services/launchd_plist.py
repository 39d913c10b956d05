"""A service's launchd property list, made from its declaration. Never loaded on a mac: the docs say so."""

from __future__ import annotations

import math
import plistlib
from typing import Any

from agent.services.artifact import Artifact, Places, plain_path
from agent.services.declaration import Declaration
from agent.services.receipt import MARKER
from agent.services.systemd_unit import HOUR_S, limits

LEAST_THROTTLE_S = 10
UMASK = 0o027
"""launchd takes a number for what it is: this one is written 23."""


def label(name: str) -> str:
    """Return the job's label: a reverse-DNS name, which is also the file's."""
    return f"org.ops-agent.{name.replace('_', '-').replace('@', '-')}"


def make_plist(declared: Declaration, places: Places, home: str) -> Artifact:
    """Return the property list: what crashed is started again, so seldom that an hour holds no more than declared."""
    life = declared.lifecycle
    wrapper = plain_path(places.wrapper(declared.name), "the wrapper's place")
    logs = f"{home}/Library/Logs/{declared.name}" if declared.scope == "user" else f"/Library/Logs/{declared.name}"
    bound = limits(declared)
    job: dict[str, Any] = {
        "Label": label(declared.name),
        "ProgramArguments": [wrapper, "run"],
        "RunAtLoad": life.run_at_load,
        "ProcessType": "Background",
        "ExitTimeOut": life.shutdown_timeout_seconds,
        "ThrottleInterval": max(LEAST_THROTTLE_S, math.ceil(HOUR_S / bound.burst)),
        "Umask": UMASK,
        "StandardOutPath": plain_path(declared.logs.stdout or f"{logs}/out.log", "the log"),
        "StandardErrorPath": plain_path(declared.logs.stderr or f"{logs}/err.log", "the log"),
        "LimitLoadToSessionType": "Background" if declared.scope == "user" else "System",
    }
    if bound.restart == "always":
        job["KeepAlive"] = True
    elif bound.restart != "no":
        job["KeepAlive"] = {"Crashed": True}
    head, _, rest = plistlib.dumps(job).partition(b"<plist")
    comment = f"<!-- {MARKER.lstrip('# ')}{declared.name.replace('--', '-')} -->\n".encode()
    return Artifact("plist", f"{places.units}/{label(declared.name)}.plist", head + comment + b"<plist" + rest, "0644")
