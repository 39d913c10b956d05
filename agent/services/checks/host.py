"""host.*: what machine this is."""

from __future__ import annotations

import re

from agent.services.check import check
from agent.services.finding import Evidence, Ruling, failed, noted, passed, warned
from agent.services.look import Look
from agent.services.probe import Unreadable

OLDEST = {"debian": 11, "ubuntu": 20, "fedora": 36, "rhel": 8, "centos": 8, "rocky": 8, "almalinux": 8}
"""The oldest major version that has what generated units use (systemd 239 with ExecCondition's 243 on most)."""


def judge_os(system: str, fields: dict[str, object], machine: str) -> Ruling:
    """Rule on a distribution, from its os-release(5) fields."""
    name = str(fields.get("name") or fields.get("id") or system)
    evidence = Evidence(path="/etc/os-release", excerpt=f"{name}, {machine}")
    if system not in ("Linux", "Darwin"):
        return failed(f"{system or 'this system'} is not supported", evidence)
    if system == "Darwin":
        return noted("macOS: launchd findings are untested on a real mac", evidence)
    version = str(fields.get("version") or "").partition(".")[0]
    oldest = OLDEST.get(str(fields.get("id")))
    if oldest is None:
        return noted(f"{name} is not among the distributions this was tried on", evidence)
    if version.isdigit() and int(version) < oldest:
        return warned(f"{name} is older than what generated units rely on", evidence)
    return passed(f"{name} on {machine}", evidence)


@check(
    "host.platform", "host", reads="/etc/os-release, uname(2)", fails_when="the system is not Linux or macOS",
    severity="high", blocks=True,
)  # fmt: skip
async def platform(look: Look) -> Ruling:
    """Rule on the operating system."""
    kernel = await look.probe.facts("kernel")
    fields = await look.probe.facts("os")
    return judge_os(str(kernel.get("system")), fields, str(kernel.get("machine")))


@check(
    "host.mdm", "host", reads="`profiles status -type enrollment`", fails_when="never, it is for information",
    severity="low", platforms=("Darwin",),
)  # fmt: skip
async def mdm(look: Look) -> Ruling:
    """Say whether somebody else may add jobs to this machine."""
    said = await look.probe.ask("mac.enrollment")
    rows = dict(re.findall(r"^([A-Za-z ]+): *(.+)$", said.require_ok().out, re.MULTILINE))
    enrolled = rows.get("MDM enrollment")
    if enrolled is None:
        raise Unreadable("`profiles` answers in a format nobody knows", said.evidence)
    if enrolled.startswith("No"):
        return noted("nobody manages this machine", said.evidence)
    server = rows.get("MDM server", "")
    return noted(f"it is managed ({enrolled[:60]}{', ' + server[:120] if server else ''}): jobs may come from there",
                 said.evidence)  # fmt: skip
