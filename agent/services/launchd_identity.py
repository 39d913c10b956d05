"""What launchd calls a service: its label and domain, and where its property list stands, also while it is away."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agent.services.artifact import Places
from agent.services.launchd_job import find_job, own_label, plist_path
from agent.services.look import Look
from agent.services.probe import Unreadable


class Identity(NamedTuple):
    """One job. `domain`: system, gui/UID or user/UID; `path`: its property list, None where there is none."""

    label: str
    domain: str
    path: str | None = None

    @property
    def target(self) -> str:
        """How launchctl is told of it."""
        return f"{self.domain}/{self.label}"


class Withdrawn(msgspec.Struct):
    """What a quarantine's note (`held.Held`) says of a job whose property list is away."""

    unit: str
    domain: str = ""


async def identity(look: Look) -> Identity:
    """Return the job's identity: as its property list has it, else as our quarantine or install left it."""
    return await look.probe.memo(("identity", look.service.name, look.user), lambda: _identity(look))


async def _identity(look: Look) -> Identity:
    service = look.service
    try:
        path = await plist_path(look)
    except Unreadable:
        return await _without_file(look)
    try:
        job = await find_job(look)
    except Unreadable:  # it can't be read: its file's name is the likeliest label
        stem = path.rpartition("/")[2].removesuffix(".plist")
        return Identity(stem, await domain_of(look, {}), path)
    return Identity(job.label or service.name, await domain_of(look, job.keys), path)


async def domain_of(look: Look, keys: dict[str, Any]) -> str:
    """Return the domain of a job with these keys: an agent for the background belongs to the user, not to a session."""
    if not look.user:
        return "system"
    kinds = keys.get("LimitLoadToSessionType")
    return f"{'user' if kinds in ('Background', ['Background']) else 'gui'}/{await look.uid()}"


async def _without_file(look: Look) -> Identity:
    service = look.service
    home = await look.home()
    held = Places.of(service.name, user=service.user, home=home, darwin=True).held
    withdrawn = await _withdrawn(look, f"{held}/restore.json")
    if withdrawn is not None and withdrawn.domain:
        return Identity(withdrawn.unit, withdrawn.domain)
    if service.receipt is None and (look.declared is None or look.declared.runtime == "systemd"):
        return Identity(service.name, await domain_of(look, {}))
    return Identity(own_label(service.name), await domain_of(look, {"LimitLoadToSessionType": "Background"}))


async def _withdrawn(look: Look, note: str) -> Withdrawn | None:
    """Return what is written of a job in quarantine; None where nothing is, or nothing that makes sense."""
    try:
        if not (await look.probe.stat(note)).exists:
            return None
        return msgspec.json.decode((await look.probe.read(note)).data, type=Withdrawn)
    except (Unreadable, msgspec.DecodeError, msgspec.ValidationError):
        return None  # release, which needs it, says what is wrong with it
