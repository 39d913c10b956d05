"""nix.*: programs that come from a nix store."""

from __future__ import annotations

from agent.services.check import check
from agent.services.checks.lint_exec import programs
from agent.services.definition import definition
from agent.services.finding import Evidence, Ruling, failed, noted, passed, skipped
from agent.services.look import Look

STORE = "/nix/store/"


async def store_paths(look: Look) -> list[tuple[str, str]]:
    """Return the programs that lead into the store, each with the store path it leads to."""
    found = []
    for path in programs((await definition(look)).unit):
        stat = await look.probe.stat(path)
        target = stat.target or path if stat.kind == "link" else path
        if target.startswith(STORE):
            found.append((path, "/".join(target.split("/")[:4])))
    return found


@check(
    "nix.source", "service", reads="where programs lead; `nix-store --query --deriver`",
    fails_when="never, it is for information", severity="low",
)  # fmt: skip
async def source(look: Look) -> Ruling:
    """Say what a store path was built from."""
    found = await store_paths(look)
    if not found:
        return skipped("nothing of it comes from a nix store")
    said = await look.probe.ask("nix.deriver", found[0][1])
    return noted(f"{found[0][0]} was built from {said.require_ok().out.strip()[:200]}", said.evidence)


@check(
    "nix.gc", "service", reads="whether the store paths are there", fails_when="one was collected", severity="high",
)  # fmt: skip
async def collected(look: Look) -> Ruling:
    """Look for store paths that are gone."""
    found = await store_paths(look)
    if not found:
        return skipped("nothing of it comes from a nix store")
    gone = [place for _, place in found if not (await look.probe.stat(place)).exists]
    if gone:
        return failed(f"{gone[0]} is gone from the store", *(Evidence(path=each) for each in gone))
    return passed("its store paths are there")
