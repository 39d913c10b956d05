"""The places of a host that a sandbox or container is to see: where each leads, once its links are resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from opsexec.capability import clean_path
from opsexec.errors import BadStep, CapabilityDenied
from opsexec.far.match import path_matches
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context
from opsexec.handlers.far_answers import Entry, answered
from opsexec.handlers.limits import call
from opsexec.steps.sandbox import bound, is_tree
from opsexec.steps.text import as_bytes


async def bind_sources(
    read_only: Mapping[str, str], writable: Mapping[str, str], run_as: str | None, context: Context
) -> dict[str, str]:
    """Return host path -> the place it leads to, which the grants admit too; raises BadStep, CapabilityDenied.

    What may be written is held against the grants to read and to write; a tree against those of whole trees, as it is
    named and at the place it leads to: a link turns neither a right to read into one to write, nor a name into a tree.
    """
    wanted = dict.fromkeys(read_only.values(), ("fs.read",)) | dict.fromkeys(writable.values(), ("fs.read", "fs.write"))
    places = await asyncio.gather(*(_source(path, verbs, run_as, context) for path, verbs in wanted.items()))
    return dict(zip(wanted, places, strict=True))


async def _source(path: str, verbs: Sequence[str], run_as: str | None, context: Context) -> str:
    places = [await _led_to(path, verb, run_as, context) for verb in verbs]
    if len(set(places)) > 1:
        raise BadStep(f"{path} leads elsewhere each time", host=context.host.name, hint="who changes it meanwhile?")
    return places[0]


async def _led_to(path: str, verb: str, run_as: str | None, context: Context) -> str:
    if is_tree(path):
        require_tree(path, verb, context)
    args = [as_bytes(clean_path(path)), pack_layers(context.capabilities.path_layers(verb))]
    (answer,) = await call("stat", args, run_as, context, items=1)
    found = answered(answer, Entry, context)
    if not found.exists:
        raise BadStep(f"{path} isn't there to be bound", host=context.host.name)
    if found.kind == "link":
        raise BadStep(f"{path} is a symbolic link", host=context.host.name, hint="name the place it leads to")
    if is_tree(path) != (found.kind == "directory"):
        hint = "a host path ends with / exactly when it is a directory"
        raise BadStep(f"{path} is a {found.kind}", host=context.host.name, hint=hint)
    place = found.path or clean_path(path)
    if is_tree(path):
        require_tree(f"{place.rstrip('/')}/", verb, context)
    return place


def require_tree(path: str, verb: str, context: Context) -> None:
    """Raise CapabilityDenied unless a whole tree is admitted, which a pattern for whole trees alone does."""
    tree = bound(path)[: -len("/**")]
    for patterns in context.capabilities.path_layers(verb):
        if not any(
            pattern == "/**" or (pattern.endswith("/**") and _covers(pattern[:-3], tree)) for pattern in patterns
        ):
            raise CapabilityDenied(f"{verb}:{tree}/**", context.capabilities.describe(verb), host=context.host.name)


def _covers(pattern: str, tree: str) -> bool:
    """True when every path below `tree` is below a place the pattern matches."""
    parts = tree.split("/")
    return any(path_matches(pattern, "/".join(parts[:at])) for at in range(2, len(parts) + 1))
