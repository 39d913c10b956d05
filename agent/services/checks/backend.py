"""backend.*: the service manager itself."""

from __future__ import annotations

import msgspec

from agent.services import launchd_state
from agent.services.check import check
from agent.services.finding import Fix, Ruling, failed, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Missing, Said
from agent.services.unit_state import parse_properties

STATES = ("initializing", "starting", "running", "degraded", "maintenance", "stopping", "offline", "unknown")
"""What `systemctl is-system-running` may say, systemctl(1)."""


def judge_running(said: Said) -> Ruling:
    """Rule on the answer of `systemctl is-system-running`."""
    state = said.out.strip()
    if state not in STATES:
        text = said.err.strip().rpartition("\n")[2][:200] or state[:80]
        return failed(
            f"no service manager answers: {text}", said.evidence, fix=Fix(text="boot it with systemd as PID 1")
        )
    if state == "running":
        return passed("systemd is running", said.evidence)
    if state == "degraded":
        fix = Fix(text="see what failed", argv=("systemctl", "--failed"), safe=True, shows=True)
        return warned("systemd runs, and some unit has failed", said.evidence, fix=fix)
    if state in ("offline", "unknown"):
        return failed(f"systemd is {state}: nothing is supervised", said.evidence)
    return warned(f"systemd is {state}", said.evidence)


@check(
    "backend.manager", "host",
    reads="`systemctl [--user] is-system-running`, `launchctl managername`, `launchctl print gui/UID`",
    fails_when="no service manager answers, or it is offline; degraded warns", severity="high", blocks=True,
    after=("host.platform",),
)  # fmt: skip
async def manager(look: Look) -> Ruling:
    """Rule on the service manager."""
    if await look.system() == "Darwin":
        return await launchd_state.judge_manager(look)
    try:
        said = await look.probe.ask("systemd.running", user=look.user)
        if said.out.strip() in ("offline", "unknown"):
            # It judges by a mark of the boot and doesn't ask; where a manager answers all the same, its word counts.
            asked = await look.probe.ask("systemd.version", user=look.user)
            state = parse_properties(asked.out).get("SystemState") if asked.rc == 0 else None
            said = msgspec.structs.replace(asked, out=state) if state else said
        return judge_running(said)
    except Missing:
        return failed("there is no systemctl: this host isn't run by systemd")


@check(
    "backend.linger", "service", reads="`loginctl show-user USER -p Linger`",
    fails_when="a user's service has no lingering manager: it ends with the last logout", platforms=("Linux",),
    after=("backend.manager",),
)  # fmt: skip
async def linger(look: Look) -> Ruling:
    """Rule on whether the user's manager stays."""
    if not look.user:
        return skipped("a system service needs no lingering")
    name = await look.user_name()
    said = await look.probe.ask("systemd.linger", name)
    if said.rc != 0 and "not logged in or lingering" in said.err:  # what loginctl 252 says of one who is neither
        return warned(f"{name} doesn't linger, and isn't logged in", said.evidence, fix=_lingering(name))
    value = parse_properties(said.require_ok().out).get("Linger")
    if value == "yes":
        return passed(f"{name} lingers", said.evidence)
    if value == "no":
        text = f"{name} doesn't linger: the service ends with the last logout"
        return warned(text, said.evidence, fix=_lingering(name))
    return unknown("loginctl doesn't say whether the user lingers", said.evidence)


def _lingering(name: str) -> Fix:
    return Fix(text="let the user's manager start at boot", argv=("loginctl", "enable-linger", name), safe=True)
