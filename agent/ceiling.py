"""The host's own ceiling: which grants a principal holds, and which of them a step falls under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from agent.principal import alternatives
from opsexec.capability import CapabilitySet, Layer, Requirement
from opsexec.errors import BadCapability, CapabilityDenied
from opsexec.steps.base import Step

if TYPE_CHECKING:
    from agent.config import Config

Number = TypeVar("Number", int, float)

MAX_EFFORT = 250_000
"""Comparisons that judging one step by its caller's own set may take, some tenths of a second in all: nobody else is
served meanwhile.
"""


class GrantSet(CapabilitySet):
    """What one grant allows. `asks_consent`: a person on this host is asked before a terminal opens under it."""

    def __init__(self, layers: Iterable[Layer], *, asks_consent: bool = False) -> None:
        super().__init__(layers)
        self.asks_consent = asks_consent
        self._narrowed: WeakKeyDictionary[CapabilitySet, CapabilitySet] = WeakKeyDictionary()

    def narrowed(self, attenuation: CapabilitySet) -> CapabilitySet:
        """Return what this and the caller's own set admit; remembered: callers ask step after step alike."""
        both = self._narrowed.get(attenuation)
        if both is None:
            both = self._narrowed[attenuation] = self & attenuation
        return both


class Ceiling:
    """The grants of one config. Each stands for itself: what two of them allow together, neither allows."""

    def __init__(self, config: Config) -> None:
        limits = config.limits
        self._grants: dict[str, list[GrantSet]] = {}
        for grant in config.grants:
            layer = _with_limits(grant.capability_set, limits.max_timeout_s, limits.max_output_bytes)
            held = GrantSet([layer], asks_consent=grant.consent == "ask")
            self._grants.setdefault(grant.principal, []).append(held)

    def grants(self, principal: str | None) -> list[GrantSet]:
        """Return the sets a principal holds; none for who has no grant, and for nobody."""
        return [held for each in alternatives(principal) for held in self._grants.get(each, [])]


def _with_limits(held: CapabilitySet, max_timeout_s: float | None, max_output_bytes: int | None) -> Layer:
    """Return the one layer of a grant's set, narrowed by the agent's own limits."""
    (layer,) = held.layers
    return Layer(
        layer.capabilities,
        layer.run_as,
        _least(layer.max_timeout_s, max_timeout_s),
        _least(layer.max_output_bytes, max_output_bytes),
    )


def _least(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else min(a, b)


NOTHING = CapabilitySet.nothing()
NO_GRANT = GrantSet(NOTHING.layers)


def effective(grants: Iterable[GrantSet], attenuation: CapabilitySet | None, step: Step) -> CapabilitySet:
    """Return the set a step is judged by: the grant that decides about it, narrowed by the caller's own set."""
    return deciding(grants, attenuation, step)[1]


def deciding(
    grants: Iterable[GrantSet], attenuation: CapabilitySet | None, step: Step
) -> tuple[GrantSet, CapabilitySet]:
    """Return the grant that admits most of what a step needs, and that grant narrowed by the caller's own set.

    The first that admits all of it wins, so a step runs under one grant as a whole, never under two halves.
    Raises BadCapability for a caller's own set by which it takes too long to judge this step.
    """
    needs = step.requires()
    if attenuation is not None and _effort(attenuation, needs) > MAX_EFFORT:
        text = f"it takes over {MAX_EFFORT} comparisons to judge this step by its caller's own set"
        raise BadCapability(text, hint="give fewer grants, without ** between two names")
    grant, best, best_score = NO_GRANT, NOTHING, -1
    for held in grants:
        narrowed = held if attenuation is None else held.narrowed(attenuation)
        users = all(step.run_as in (None, *layer.run_as) or "*" in layer.run_as for layer in narrowed.layers)
        score = sum(narrowed.admits(need) for need in needs) * 2 + users
        if score > best_score:
            grant, best, best_score = held, narrowed, score
    return grant, best


def _effort(held: CapabilitySet, needs: Iterable[Requirement]) -> int:
    """Return how many comparisons it may take to judge these needs by a set.

    Behind a `**` that more follows, a path's parts may each be compared with the pattern's: who chooses both has them.
    """
    grants = sum(len(layer.capabilities) for layer in held.layers)
    behind = sum(
        each.words[0].count("/")
        for layer in held.layers
        for each in layer.capabilities
        if each.kind != "name" and "**/" in each.words[0]
    )
    return sum(grants + behind * _path(need).count("/") for need in needs)


def _path(need: Requirement) -> str:
    return need.resource if isinstance(need.resource, str) else need.resource[0]


def still_admits(grants: Iterable[GrantSet], attenuation: CapabilitySet | None, step: Step) -> bool:
    """True when one grant admits all that a step needs, as it must have when the step began."""
    held = effective(grants, attenuation, step)
    try:
        for need in step.requires():
            held.require(need)
        held.require_user(step.run_as)
    except CapabilityDenied:
        return False
    return True
