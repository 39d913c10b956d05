"""A launchd job's state in a unit's terms, so that the commands say one thing of both managers. Untested on a mac."""

from __future__ import annotations

import re

from agent.services.artifact import Places
from agent.services.launchd_identity import identity
from agent.services.launchd_job import find_job
from agent.services.launchd_state import job
from agent.services.look import Look
from agent.services.probe import Unreadable
from opsexec.handlers.launchctl import COMING, RUNNING, parse_disabled


async def launchd_unit_state(look: Look) -> dict[str, str]:
    """Return the properties that `systemctl show` would have, and `Loaded`: whether launchd knows it (yes, no).

    `LoadState` masked: in quarantine, nothing can start it. Raises Unreadable.
    """
    who = await identity(look)
    places = Places.of(look.service.name, user=look.user, home=await look.home(), darwin=True)
    found, _ = await job(look)
    said = (await look.probe.ask("launchd.disabled", who.domain)).require_ok()
    if "{" not in said.out:
        raise Unreadable("launchctl answers in a format nobody knows", said.evidence)
    override = parse_disabled(said.out).get(who.label)
    disabled = await _disabled_by_file(look) if override is None else override
    path = who.path or (found or {}).get("path", "")
    away = who.path is None or not who.path.startswith(f"{places.units}/")
    held = (await look.probe.stat(f"{places.held}/restore.json")).exists
    keys = found or {}
    code = re.match(r"[0-9]+", keys.get("last exit code", ""))
    active = "inactive"
    if keys.get("state") == RUNNING:
        active = "active"
    elif keys.get("state") in COMING:
        active = "activating"
    elif code and int(code[0]):
        active = "failed"
    load = "loaded" if found is not None or who.path is not None else "not-found"
    if held and away and found is None and override:
        load = "masked"
    return {
        "Id": who.target,
        "Loaded": "no" if found is None else "yes",
        "LoadState": load,
        "ActiveState": active,
        "SubState": keys.get("state", "not loaded"),
        "UnitFileState": "disabled" if disabled else "enabled" if who.path is not None else "",
        "Overridden": "" if override is None else "disabled" if override else "enabled",
        "Result": "exit-code" if active == "failed" else "success",
        "NRestarts": keys.get("runs", "0"),
        "MainPID": keys.get("pid", "0"),
        "ExecMainStatus": code[0] if code else "0",
        "FragmentPath": path,
        "ActiveEnterTimestamp": "",
    }


async def _disabled_by_file(look: Look) -> bool:
    """Return what the property list's own key says: it counts where launchd's database has no word on the job."""
    try:
        return (await find_job(look)).keys.get("Disabled") is True
    except Unreadable:
        return False
