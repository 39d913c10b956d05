"""Whether a path exists on the host, under the set's read grants: what `creates` asks."""

from __future__ import annotations

import json

from opsexec.capability import clean_path
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context


async def exists(path: str, run_as: str | None, context: Context) -> bool:
    """True when the path exists (a dangling link counts)."""
    grants = pack_layers(context.capabilities.path_layers("fs.read"))
    (answer,) = await context.host.call("stat", [clean_path(path).encode(), grants], run_as=run_as)
    return bool(json.loads(answer)["exists"])
