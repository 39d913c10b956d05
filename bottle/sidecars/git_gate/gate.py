"""What both of the agent's doors serve by, and how either says what it denies."""

from __future__ import annotations

from collections.abc import Mapping

from bottle.sidecars.git_gate.bounds import Bounds
from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.hook import Hooks, decided
from bottle.sidecars.git_gate.repository import Repository
from bottle.sidecars.git_gate.said import say

WANTS_BYTES = 64 << 20
"""What a fetch may send: its wants and haves, 50 bytes each."""


class Gate:
    """One bottle's declared repositories, the hooks that decide on a push, and the bounds that its doors share."""

    def __init__(
        self, bottle: str, repositories: Mapping[str, Repository], hooks: Hooks, limits: Limits, bounds: Bounds
    ) -> None:
        self.bottle = bottle
        self.repositories = repositories
        self.hooks = hooks
        self.limits = limits
        self.bounds = bounds

    def allowed(self, repository: str, action: str) -> None:
        """Say that this goes on to git."""
        say(decided(self.bottle, repository, action, None))

    def denied(self, repository: str, action: str, why: str) -> None:
        """Say that this was refused."""
        say(decided(self.bottle, repository, action, why))
