"""A service's launchd property list, made from its declaration. Never loaded on a mac: untested there."""

from __future__ import annotations

import math
import plistlib
from typing import Any

from agent.services.artifact import Artifact, Places, plain_path
from agent.services.declaration import Declaration
from agent.services.launchd_job import own_label
from agent.services.receipt import MARKER
from agent.services.systemd_unit import HOUR_S, limits

LEAST_THROTTLE_S = 10
UMASK = 0o027
"""launchd takes a number for what it is: this one is written 23."""


def log_directory(declared: Declaration, home: str) -> str:
    """Return where the job logs unless its declaration says otherwise; launchd makes the files, never the directory."""
    logs = f"{home}/Library/Logs" if declared.scope == "user" else "/Library/Logs"
    return f"{logs}/{declared.name}"


def make_plist(declared: Declaration, places: Places, home: str) -> Artifact:
    """Return the property list: what crashed is started again, so seldom that an hour holds no more than declared."""
    life = declared.lifecycle
    wrapper = plain_path(places.wrapper(declared.name), "the wrapper's place")
    logs = log_directory(declared, home)
    bound = limits(declared)
    job: dict[str, Any] = {
        "Label": own_label(declared.name),
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
    return Artifact(
        "plist", f"{places.units}/{own_label(declared.name)}.plist", head + comment + b"<plist" + rest, "0644"
    )
