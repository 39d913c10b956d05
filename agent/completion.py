"""`ops-agent completion SHELL`, and what a command line may name: the inventory's hosts, the checks there are."""

from __future__ import annotations

import argparse


def completion(shell: str) -> int:
    """Print a shell's script."""
    from opsexec.cli.asking import script

    print(script("ops-agent", shell), end="")
    return 0


def values(action: argparse.Action) -> list[str]:
    """Return what an argument may be, where that can be told."""
    if action.dest == "host":
        return _hosts()
    if action.dest == "only":
        from agent.services.check import FAMILIES, checks

        return [*FAMILIES, *(check.id for check in checks())]
    return []


def _hosts() -> list[str]:
    import asyncio

    from opsexec.inventory import Inventory

    return sorted(asyncio.run(Inventory.load()).hosts)
