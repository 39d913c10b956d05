"""lint.quadlet: the .container file that podman's generator makes a unit of."""

from __future__ import annotations

import difflib

from agent.services.check import check
from agent.services.definition import where
from agent.services.finding import Evidence, Ruling, failed, noted, passed, skipped, warned
from agent.services.look import Look
from agent.services.quadlet_keys import NEWEST, SINCE
from agent.services.unit_file import UnitText, parse_unit

SECTION = "Container"
FIRST = (4, 4)
SYSTEM_PLACES = ("/etc/containers/systemd", "/usr/share/containers/systemd")


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def judge_quadlet(text: UnitText, version: tuple[int, ...]) -> list[Ruling]:
    """Return what podman's generator of that version would refuse; it makes no unit at all then."""
    at = Evidence(path=text.path)
    if text.binary:
        return [failed("the Quadlet file isn't text", at)]
    found = []
    if text.odd:
        line, said = text.odd[0]
        evidence = Evidence(path=text.path, line=line, excerpt=said)
        found.append(failed(f"line {line} is neither a section nor a setting", evidence))
    keys = [each for each in text.settings if each.section == SECTION]
    for each in keys:
        since = SINCE.get(each.key)
        if since is None:
            near = difflib.get_close_matches(each.key, SINCE, n=1)
            said = f"unknown key {each.key[:60]}=" + (f", meant is {near[0]}=" if near else "")
            newer = version[:2] > NEWEST and not near
            found.append((warned if newer else failed)(said, where(each)))
        elif since > version[:2]:
            found.append(failed(f"{each.key}= takes podman {dotted(since)}, here is {dotted(version)}", where(each)))
    if not {"Image", "Rootfs"} & {each.key for each in keys if each.value}:
        found.append(failed("it names neither Image= nor Rootfs=", at))
    return found


async def places(look: Look) -> list[str]:
    """Return where the service's Quadlet file may stand."""
    stem = look.service.unit.removesuffix(".service")
    own = f"{await look.home()}/.config/containers/systemd"
    of_users = ("/etc/containers/systemd/users", f"/etc/containers/systemd/users/{await look.uid()}")
    directories = (own, *of_users) if look.user else (*SYSTEM_PLACES, own)
    return [f"{directory}/{stem}.container" for directory in directories]


@check(
    "lint.quadlet", "service", reads="the service's .container file, key by key; podman's version",
    fails_when="this podman makes no unit of it: it is older than 4.4, or than a key, or a key is none",
    platforms=("Linux",), after=("podman.version",),
)  # fmt: skip
async def quadlet(look: Look) -> Ruling | list[Ruling]:
    """Rule on the Quadlet file of the service."""
    from agent.services.checks.podman import podman_version

    there = [place for place in await places(look) if (await look.probe.stat(place)).exists]
    if not there:
        return skipped("it has no Quadlet file")
    version = await podman_version(look)
    if version < FIRST:
        return failed(f"podman {dotted(version)} doesn't read Quadlet files (4.4 does)", Evidence(path=there[0]))
    file = await look.probe.read(there[0])
    wrong = judge_quadlet(parse_unit(file.data, file.asked), version)
    if wrong:
        return wrong[:20]
    if len(there) > 1:
        return noted(f"{len(there) - 1} more Quadlet files of the name", *(Evidence(path=each) for each in there))
    return passed(f"podman {dotted(version)} takes every key", Evidence(path=there[0]))
