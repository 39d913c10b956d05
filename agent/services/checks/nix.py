"""nix.*: programs that come from a nix store."""

from __future__ import annotations

from typing import Any

from agent.services.check import check
from agent.services.checks.lint_exec import programs
from agent.services.definition import definition
from agent.services.finding import Evidence, Ruling, failed, noted, passed, skipped
from agent.services.look import Look
from agent.services.probe import Said, Unreadable
from opsexec.far.match import normalise

STORE = "/nix/store/"
SYSTEM = "/run/current-system"
"""The link to the system that NixOS, or nix-darwin, runs now."""

HOPS = 12


def store_path(path: str) -> str | None:
    """Return the store path that a path is in; None for one outside of the store."""
    parts = path.split("/")
    return "/".join(parts[:4]) if path.startswith(STORE) and len(parts) > 3 and parts[3] else None


async def lead(look: Look, path: str) -> str | None:
    """Return the store path a program comes from, link by link; None when its links never enter the store."""
    for _ in range(HOPS):
        inside = store_path(path)
        if inside is not None:
            return inside
        stat = await look.probe.stat(path)
        real = stat.path or path
        if store_path(real) is not None or stat.kind != "link" or not stat.target:
            return store_path(real)
        path = normalise(stat.target if stat.target.startswith("/") else f"{real.rpartition('/')[0]}/{stat.target}")
    raise Unreadable(f"{path} leads through over {HOPS} links", Evidence(path=path))


async def store_paths(look: Look) -> list[tuple[str, str]]:
    """Return the programs that lead into the store, each with the store path it leads to."""
    found = []
    for path in programs((await definition(look)).unit):
        inside = await lead(look, path)
        if inside is not None:
            found.append((path, inside))
    return found


def owners(said: Said, place: str) -> list[str]:
    """Return what of `nix profile list --json` holds a store path: names and flakes; raises Unreadable.

    Its elements are a list until nix 2.19, and a mapping by name since.
    """
    found = said.json()
    elements = found.get("elements") if isinstance(found, dict) else None
    if isinstance(elements, list):
        rows: list[tuple[str, Any]] = [(str(at), each) for at, each in enumerate(elements)]
    elif isinstance(elements, dict):
        rows = list(elements.items())
    else:
        raise Unreadable("nix's list of its profile makes no sense", said.evidence)
    names = []
    for name, each in rows:
        paths = each.get("storePaths") if isinstance(each, dict) else None
        if isinstance(paths, list) and place in paths:
            origin = each.get("originalUrl") or each.get("url") or ""
            names.append(f"{name} {str(origin)[:120]}".strip())
    return names


@check(
    "nix.source", "service",
    reads=f"where programs lead, link by link; `nix profile list`, {SYSTEM}, `nix-store --query --deriver`",
    fails_when="never, it is for information", severity="low",
)  # fmt: skip
async def source(look: Look) -> Ruling:
    """Say where a program of the store comes from: a profile, the running system, a derivation."""
    found = await store_paths(look)
    if not found:
        return skipped("nothing of it comes from a nix store")
    program, place = found[0]
    text, evidence = f"{program} is of {place}", [Evidence(path=place)]
    try:
        said = await look.probe.ask("nix.profile")
        holders = owners(said, place) if said.rc == 0 else []
        if holders:
            text += f", in the profile as {holders[0]}"
        evidence.append(said.evidence)
    except Unreadable as error:
        evidence += error.evidence
    system = await look.probe.stat(SYSTEM)
    if program.startswith(SYSTEM + "/"):
        text += ", of the running system" + (f" {system.target[:120]}" if system.target else "")
    try:
        said = await look.probe.ask("nix.deriver", place)
        if said.rc == 0 and said.out.strip().startswith("/"):
            text += f", built from {said.out.strip()[:200]}"
        evidence.append(said.evidence)
    except Unreadable as error:
        evidence += error.evidence  # a store without its programs, as in an image
    return noted(text, *evidence)


@check(
    "nix.gc", "service", reads="whether the store paths are there", fails_when="one was collected", severity="high",
)  # fmt: skip
async def collected(look: Look) -> Ruling:
    """Look for store paths that are gone."""
    found = await store_paths(look)
    if not found:
        return skipped("nothing of it comes from a nix store")
    gone = sorted({place for _, place in found if not (await look.probe.stat(place)).exists})
    if gone:
        return failed(f"{gone[0]} is gone from the store", *(Evidence(path=each) for each in gone))
    return passed("its store paths are there")
