"""`bottle completion SHELL`, and what a command line may name: the bottles and agents there are."""

from __future__ import annotations

import argparse
import os

from opsexec.cli.asking import script


def completion(arguments: argparse.Namespace) -> int:
    """Print a shell's script."""
    print(script("bottle", arguments.shell), end="")
    return 0


def values(action: argparse.Action) -> list[str]:
    """Return what an argument may be, where that can be told."""
    if action.metavar == "ID":
        from bottle.manifest.store import home_root
        from bottle.state import State

        return State(home_root()).identities()
    if action.metavar == "AGENT":
        return _agents()
    return []


def _agents() -> list[str]:
    from bottle.manifest.store import home_root

    found = set()
    for place in (home_root() / "agents", os.path.join(".bot-bottle", "agents")):
        try:
            names = os.listdir(place)
        except OSError:
            continue
        found |= {name.removesuffix(".md") for name in names if name.endswith(".md")}
    return sorted(found)
