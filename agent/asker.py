"""`Asker`: who makes a request, as the listener proved it, and what they hold here."""

from __future__ import annotations

from agent.ceiling import GrantSet

LAYER = "agent"
"""What this ceiling is called, in denials and in the audit."""


class Asker:
    """A principal at a listener, with its grants as they are now. Nothing in a message changes it."""

    def __init__(self, principal: str, listener: str, grants: list[GrantSet]) -> None:
        self.principal = principal
        self.listener = listener
        self.grants = grants
