"""container.*: what runs in podman, and what is left of what ran."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agent.services.check import check
from agent.services.checks.podman import CHAIN, link_of, uses_podman
from agent.services.finding import Evidence, Fix, Ruling, failed, noted, passed, skipped, unknown, warned
from agent.services.look import Look
from agent.services.probe import Unreadable

OWNER_LABEL = "ops-agent.service"
"""A container of ours carries its service's name under this label."""

STATES = frozenset({
    "created", "initialized", "running", "exited", "paused", "stopping", "stopped", "removing", "restarting", "dead",
    "unknown", "configured", "improper",
})  # fmt: skip
MAX_CONTAINERS = 5000
MAX_STOPPED = 50
PID_BYTES = 32
STARTED = 19
"""Where a process's start stands in /proc/PID/stat, counted from after its name (proc(5), field 22); in ticks."""
HZ = 100
"""Ticks a second, as Linux shows them to programs (USER_HZ) on every architecture that podman is built for."""


class Container(msgspec.Struct, frozen=True):
    """One line of `podman ps`. `pid`: 0 when it has none."""

    name: str
    state: str
    pid: int
    labels: dict[str, str]
    exited_at: float


async def containers(look: Look) -> list[Container]:
    """Return all containers; raises Unreadable for an answer that makes no sense."""
    said = await look.probe.ask("podman.containers", connection=link_of(look))
    try:
        return parse_containers(said.json())
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable("podman's list of containers makes no sense", said.evidence) from error


def parse_containers(found: Any) -> list[Container]:
    """Return the containers of `podman ps --format json`; raises ValueError and its like for other shapes."""
    if not isinstance(found, list) or len(found) > MAX_CONTAINERS:
        raise ValueError("not a list of containers")
    return [
        Container(
            name=str(each["Names"][0]) if each.get("Names") else str(each["Id"])[:12],
            state=str(each["State"]).lower(),
            pid=int(each.get("Pid") or 0),
            labels={str(k): str(v) for k, v in (each.get("Labels") or {}).items()},
            exited_at=float(each.get("ExitedAt") or 0),
        )
        for each in found
    ]


def the_name(look: Look) -> str | None:
    """Return the name of the service's container, the service's own unless another is declared; None for a host."""
    declared = look.declared
    if declared is None or (declared.runtime != "podman" and not declared.container_name):
        return None
    return declared.container_name or declared.name


async def ours(look: Look) -> list[Container]:
    """Return the service's container, or for a host all of them."""
    name = the_name(look)
    found = await containers(look)
    return [each for each in found if each.name == name] if look.has_service else found


def applies(look: Look) -> bool:
    """Whether there is anything to look at."""
    return uses_podman(look) and (not look.has_service or the_name(look) is not None)


@check(
    "container.name-free", "service", reads="`podman ps --all`, by exact name and the label of its owner",
    fails_when="somebody else's container has the name", severity="high", after=CHAIN, blocks=True,
)  # fmt: skip
async def name_free(look: Look) -> Ruling:
    """Rule on who holds the container's name."""
    name = the_name(look)
    if name is None:
        return skipped("no container is declared")
    for each in await ours(look):
        if each.labels.get(OWNER_LABEL) != look.service.name:
            fix = Fix(text="rename or remove it, once you know whose it is")
            return failed(f"a container {name} is there that isn't ours ({each.state})", fix=fix)
        return passed(f"{name} is ours ({each.state})")
    return passed(f"the name {name} is free")


@check(
    "container.state", "podman", reads="`podman ps --all`, State; how long it has been stopping",
    fails_when="a container hangs between states, or is dead", severity="high", after=CHAIN,
)  # fmt: skip
async def state(look: Look) -> Ruling:
    """Rule on the states of containers."""
    if not applies(look):
        return skipped("no container is declared")
    found = await ours(look)
    wrong: list[tuple[Container, str]] = []
    for each in found:
        if each.state not in STATES:
            return unknown(f"podman says {each.name} is {each.state[:40]!r}, which nobody knows")
        if each.state in ("stopping", "removing"):
            wrong.append((each, f"{each.name} hangs while it is {each.state}"))
        elif each.state in ("dead", "improper"):
            wrong.append((each, f"{each.name} is {each.state}"))
        elif each.state == "restarting":
            wrong.append((each, f"{each.name} is restarted again and again by podman"))
    if wrong:
        first = wrong[0][0].name
        fix = Fix(text="take it away", argv=("podman", "rm", "-f", "-t", "0", first))
        return failed(wrong[0][1], *(Evidence(excerpt=text) for _, text in wrong[:20]), fix=fix)
    if not found:
        return skipped("there is no container")
    running = sum(each.state == "running" for each in found)
    return passed(f"{running} of {len(found)} containers run")


@check(
    "container.orphan", "podman",
    reads="`podman ps --all` State and Pid, /proc/PID; of a stopped one PidFile, too, and when that process started",
    fails_when="podman thinks it ended, and its process lives", severity="high", platforms=("Linux",), after=CHAIN,
)  # fmt: skip
async def orphan(look: Look) -> Ruling:
    """Look for processes that podman has lost."""
    if not applies(look):
        return skipped("no container is declared")
    if link_of(look) is not None:
        return skipped("its processes are on another machine")
    lost = []
    found = await ours(look)
    for each in found:
        ended = each.state not in ("running", "paused", "stopping", "initialized") and each.pid > 1
        if ended and (await look.probe.stat(f"/proc/{each.pid}")).exists:
            text = f"{each.name} is {each.state}, pid {each.pid} lives"
            lost.append(Evidence(excerpt=text, path=f"/proc/{each.pid}"))
    forgotten = [each for each in found if each.state == "stopped" and each.pid == 0]
    if len(forgotten) > MAX_STOPPED and not lost:
        return unknown(f"{len(forgotten)} containers are stopped and not cleaned up: too many to ask after each")
    lost += [left for each in forgotten[:MAX_STOPPED] if (left := await left_behind(look, each)) is not None]
    if lost:
        return failed(f"{len(lost)} containers have ended for podman, and live", *lost[:20])
    return passed("no process is left behind") if found else skipped("there is no container")


async def left_behind(look: Look, container: Container) -> Evidence | None:
    """Return evidence of the process of a container that podman forgot, but hasn't taken from its runtime; or None.

    podman no longer tells that process (podman 4.3.1, as it reads an exit file); the file it was written to does. It is
    the container's where it started before the container ended: until then nobody else got its number.
    """
    found = await inspected(look, container.name)
    if found is None:
        return None
    file = str(found.get("PidFile") or "/nonexistent")
    if not (await look.probe.stat(file)).exists:
        return None
    text = (await look.probe.read(file, max_bytes=PID_BYTES)).text
    if re.fullmatch(r"[0-9]{1,9}\s*", text) is None:
        return None
    path = f"/proc/{int(text)}"
    if not (await look.probe.stat(path)).exists:
        return None
    fields = (await look.probe.read(f"{path}/stat")).text.rpartition(")")[2].split()
    booted = re.search(r"(?m)^btime ([0-9]+)$", (await look.probe.read("/proc/stat")).text)
    if booted is None or len(fields) <= STARTED:
        raise Unreadable("/proc doesn't tell when a process started")
    if fields[0] in "ZX" or int(booted[1]) + int(fields[STARTED]) / HZ > container.exited_at:
        return None
    return Evidence(
        excerpt=f"{container.name} is stopped, pid {int(text)} lives (it is in state {fields[0]})", path=path
    )


async def inspected(look: Look, name: str) -> dict[str, Any] | None:
    """Return `podman container inspect`; None when there is no such container. Raises Unreadable."""
    said = await look.probe.ask("podman.container", name, connection=link_of(look))
    if said.rc == 125 and re.search(r"no such (container|object)", said.err):
        return None
    found = said.json()
    if isinstance(found, list) and found and isinstance(found[0], dict):
        return found[0]
    raise Unreadable("podman's answer about the container makes no sense", said.evidence)


@check(
    "container.double-supervised", "service", reads="`podman container inspect` HostConfig.RestartPolicy",
    fails_when="podman restarts what the service manager restarts too", after=CHAIN,
)  # fmt: skip
async def double_supervised(look: Look) -> Ruling:
    """Rule on podman's own restart policy."""
    name = the_name(look)
    found = await inspected(look, name) if name else None
    if name is None or found is None:
        return skipped("there is no container of it")
    policy = found["HostConfig"]["RestartPolicy"]["Name"]
    if policy not in ("", "no"):
        return warned(f"podman restarts {name} too ({str(policy)[:40]})", fix=Fix(text="use --restart=no"))
    return passed("the service manager alone restarts it")


@check(
    "container.health", "service", reads="`podman container inspect` State.Health",
    fails_when="its health check fails", after=CHAIN,
)  # fmt: skip
async def health(look: Look) -> Ruling:
    """Rule on the container's own health check."""
    name = the_name(look)
    found = await inspected(look, name) if name else None
    if name is None or found is None:
        return skipped("there is no container of it")
    said = found["State"].get("Health") or found["State"].get("Healthcheck") or {}
    status = said.get("Status") or ""
    if status == "unhealthy":
        return warned(f"{name} is unhealthy, {said.get('FailingStreak')} times in a row")
    if status == "healthy":
        return passed(f"{name} is healthy")
    return noted(f"{name} has no health check") if not status else noted(f"{name}: health is {str(status)[:40]}")
