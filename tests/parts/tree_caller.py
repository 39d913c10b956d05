"""A caller in a process of its own, to be interrupted or killed: grows the trees it is told of and waits.

As a program: `python -m tests.parts.tree_caller JSON`; the JSON is what `argv` makes. It prints the marker of each tree
whose step has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys

from opsexec import CapabilitySet, NullAudit, connect
from tests.parts.targets import Target
from tests.parts.trees import Tree, grow_all


def argv(target: Target, trees: list[Tree], *, on_terminal: bool) -> list[str]:
    """How to start a caller for these trees."""
    told = {
        "url": target.url,
        "identity_files": [str(path) for path in target.identity_files or ()] or None,
        "known_hosts": str(target.known_hosts) if target.known_hosts else None,
        "tailscaled_socket": target.tailscaled_socket,
        "trees": [(tree.shape, tree.nap) for tree in trees],
        "on_terminal": on_terminal,
    }
    return [sys.executable, "-m", "tests.parts.tree_caller", json.dumps(told)]


async def main() -> None:
    """Grow the trees."""
    told = json.loads(sys.argv[1])
    trees = [Tree(*pair) for pair in told["trees"]]
    async with connect(
        told["url"],
        capabilities=CapabilitySet.everything(),
        audit=NullAudit(),
        identity_files=told["identity_files"],
        known_hosts=told["known_hosts"],
        config_files=(),
        tailscaled_socket=told["tailscaled_socket"],
    ) as ex:

        async def one(tree: Tree) -> None:
            await grow_all(ex, [tree], on_terminal=told["on_terminal"])
            print(tree.nap, flush=True)

        await asyncio.gather(*(one(tree) for tree in trees))


if __name__ == "__main__":
    asyncio.run(main())
