"""ListTree: one operation on the host; the listing is the step's stdout, as a file's content is ReadFile's."""

from __future__ import annotations

import msgspec

from opsexec.capability import clean_path
from opsexec.errors import BadStep
from opsexec.far.message import pack_layers, pack_message
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import decoded, shaped
from opsexec.handlers.limits import call, require_within_limit
from opsexec.steps.base import Step
from opsexec.steps.text import as_bytes
from opsexec.steps.trees import ListTree


class Listed(msgspec.Struct, frozen=True):
    """How a listing went."""

    exists: bool
    entries: int
    cut: bool
    denied: int
    unreadable: int


async def handle(step: Step, context: Context) -> Outcome:
    """List the tree."""
    if not isinstance(step, ListTree):
        raise BadStep(f"{type(step).__name__} is no step on trees")
    args = [
        as_bytes(clean_path(step.path)),
        pack_layers(context.capabilities.path_layers("fs.read")),
        pack_message([as_bytes(pattern) for pattern in step.excludes]),
        b"%d" % step.max_entries,
        b"%d" % step.max_file_bytes,
        b"%d" % step.max_bytes,
    ]
    lines, meta = await call("list_tree", args, step.run_as, context, items=2)
    context.recorder.feed(0, lines)
    require_within_limit(context)
    value = decoded(meta, context)
    shaped(value, Listed, context)
    return Outcome(value=value)
