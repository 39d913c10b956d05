"""Which hosts a run touches, in which tiers and batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opsexec.errors import UsageError
from opsexec.inventory import Inventory, InventoryHost, is_url
from opsexec.patterns import NoHostMatches, Pattern
from opsexec.runbook.model import Runbook, Share, Tier, share_of


@dataclass(frozen=True)
class TierPlan:
    """A tier with its hosts in batches; `max_failures` counts hosts of the tier."""

    tier: Tier | None
    batches: tuple[tuple[InventoryHost, ...], ...]
    max_failures: int

    @property
    def title(self) -> str:
        """The tier's name; a runbook without tiers has one called "all"."""
        return self.tier.title if self.tier is not None else "all"

    @property
    def hosts(self) -> tuple[InventoryHost, ...]:
        """Every host of the tier."""
        return tuple(host for batch in self.batches for host in batch)


def plan_tiers(runbook: Runbook, inventory: Inventory, limit: str | None) -> list[TierPlan]:
    """Return the tiers in order, each host in the first one that names it, cut to `limit`.

    Raises UsageError when a pattern matches nothing, or when no tier takes any host.
    """
    hosts = inventory.select(runbook.hosts)
    chosen = _limited(hosts, runbook, inventory, limit)
    if not runbook.tiers:
        return [TierPlan(None, (tuple(chosen),), share_of(runbook.max_failures, len(chosen)))]
    known = list(inventory.hosts.values()) or hosts
    left = dict.fromkeys(host.name for host in chosen)
    plans = []
    for tier in runbook.tiers:
        pattern = Pattern.parse(tier.hosts)
        if not is_url(runbook.hosts):
            pattern.select(known)
        members = [host for host in pattern.filter(chosen) if host.name in left]
        for host in members:
            del left[host.name]
        if members:
            allowed = share_of(tier.max_failures or runbook.max_failures, len(members))
            plans.append(TierPlan(tier, batches_of(members, tier.serial), allowed))
    if not plans:
        raise UsageError("no tier takes any of the selected hosts", hint="check the tiers' patterns, or --limit")
    return plans


def _limited(
    hosts: list[InventoryHost], runbook: Runbook, inventory: Inventory, limit: str | None
) -> list[InventoryHost]:
    """Return the runbook's hosts that the limit leaves; NoHostMatches says which of the two is at fault."""
    if limit is None:
        return hosts
    pattern = Pattern.parse(limit)
    try:
        return pattern.select(hosts)
    except NoHostMatches:
        pattern.select(list(inventory.hosts.values()))  # a typo is said to be one
        raise NoHostMatches(
            f"--limit {limit!r} leaves none of the runbook's hosts, or names others", hint=f"they are: {runbook.hosts}"
        ) from None


def untaken(plans: Sequence[TierPlan], runbook: Runbook, inventory: Inventory, limit: str | None) -> list[str]:
    """Return the selected hosts that no tier takes: a person should know that nothing happens there."""
    chosen = _limited(inventory.select(runbook.hosts), runbook, inventory, limit)
    taken = {host.name for plan in plans for host in plan.hosts}
    return [host.name for host in chosen if host.name not in taken]


def batches_of(hosts: Sequence[InventoryHost], serial: Sequence[Share]) -> tuple[tuple[InventoryHost, ...], ...]:
    """Cut hosts into batches of these sizes, the last size repeated.

    Percentages are of all of them, rounded up.
    """
    if not serial:
        return (tuple(hosts),)
    batches = []
    at = turn = 0
    while at < len(hosts):
        size = max(1, share_of(serial[min(turn, len(serial) - 1)], len(hosts)))
        batches.append(tuple(hosts[at : at + size]))
        at += size
        turn += 1
    return tuple(batches)
