"""Whether a path exists on the host, under the set's read grants: what `creates` asks."""

from __future__ import annotations

from opsexec.capability import clean_path
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context
from opsexec.handlers.far_answers import Existence, answered
from opsexec.handlers.limits import call
from opsexec.steps.text import as_bytes


async def exists(path: str, run_as: str | None, context: Context) -> bool:
    """True when the path exists (a dangling link counts); within the step's deadline."""
    grants = pack_layers(context.capabilities.path_layers("fs.read"))
    (answer,) = await call("stat", [as_bytes(clean_path(path)), grants], run_as, context, items=1)
    return answered(answer, Existence, context).exists
