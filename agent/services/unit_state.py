"""What the service manager knows of a unit: `systemctl show`, parsed."""

from __future__ import annotations

from agent.services.look import Look
from agent.services.probe import Missing, Said, Unreadable
from agent.services.restart_limits import DEFAULT_BURST, DEFAULT_INTERVAL_S, DEFAULT_RESTART_S, Limits
from agent.services.timespan import seconds


def parse_properties(text: str) -> dict[str, str]:
    """Return `Key=value` lines as a mapping; the first of a key counts, and what is no such line is left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.isidentifier():
            found.setdefault(key, value)
    return found


async def ask_unit(look: Look, *, again: int = 0) -> Said:
    """Return the manager's answer about the unit, asked anew for another `again`; raises Unreadable."""
    try:
        said = await look.probe.ask("systemd.unit", look.service.unit, user=look.service.user, again=again)
    except Missing as error:
        raise Unreadable("there is no systemctl here", root="backend.manager") from error
    if said.rc != 0:
        last = said.err.strip().rpartition("\n")[2][:200]
        raise Unreadable(f"the service manager doesn't answer: {last}", said.evidence, root="backend.manager")
    return said


async def unit_state(look: Look) -> dict[str, str]:
    """Return the unit's properties; raises Unreadable, also for an answer that is none."""
    said = await ask_unit(look)
    found = parse_properties(said.out)
    if "LoadState" not in found or "ActiveState" not in found:
        raise Unreadable("the service manager's answer makes no sense", said.evidence)
    return found


async def installed(look: Look) -> dict[str, str]:
    """Return the properties of a unit that is there; raises Unreadable, with its root, where none is."""
    found = await unit_state(look)
    if found["LoadState"] == "not-found" and found["ActiveState"] in ("inactive", "failed"):
        raise Unreadable(f"there is no {look.service.unit} on this host", root="svc.state")
    return found


def loaded(state: dict[str, str]) -> bool:
    """True when the manager has the unit at all."""
    return state["LoadState"] not in ("not-found", "masked")


def limits_of(state: dict[str, str]) -> Limits:
    """Return the restart limits that are in force; raises Unreadable for values nobody can read."""
    interval = seconds(state.get("StartLimitIntervalUSec", "") or f"{DEFAULT_INTERVAL_S}s")
    between = seconds(state.get("RestartUSec", "") or f"{DEFAULT_RESTART_S}s")
    burst = state.get("StartLimitBurst", "") or str(DEFAULT_BURST)
    if interval is None or between is None or not burst.isdigit():
        raise Unreadable("the service manager's restart limits can't be read")
    return Limits(restart=state.get("Restart", "no"), restart_s=between, interval_s=interval, burst=int(burst))
