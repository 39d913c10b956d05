"""What a bottle may be granted on this host: verbs of a closed set, and never another user."""

from __future__ import annotations

from collections.abc import Collection

from agent.errors import BadConfig
from agent.principal import BOTTLE
from opsexec.capability import Capability

VERBS = frozenset(("git.fetch", "git.scan", "git.forward", "script.run"))
"""All that a bottle may ever ask for. A bottle's socket carries out none of them yet."""


def check_bottle_grant(
    principal: str, bottles: Collection[str], capabilities: Collection[str], run_as: Collection[str]
) -> None:
    """Raise BadConfig for a bottle that no address stands for, and for what no bottle may be granted."""
    name = principal.removeprefix(BOTTLE)
    if name != "*" and name not in bottles:
        hint = "the bottles that are listened for: " + ", ".join(sorted(bottles))
        raise BadConfig(f"nobody can be {principal!r}: no address is its socket", hint=hint)
    if run_as:
        raise BadConfig(f"{principal!r} can't be granted another user", hint="leave run_as out")
    for text in capabilities:
        beyond = sorted(set(Capability.parse(text).verbs) - VERBS)
        if beyond:
            hint = "a bottle's verbs: " + ", ".join(sorted(VERBS))
            raise BadConfig(f"{principal!r} can't be granted {beyond[0]}", hint=hint)
