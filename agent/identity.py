"""`Identity`: who is at the other end of a connection, or why nobody says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Identity(NamedTuple):
    """`principal`: None for nobody, and then `why` says so. `node`: which machine of the tailnet it is.

    `passing`: nobody could say just now, which isn't the same as that it is nobody.
    """

    principal: str | None
    why: str | None = None
    node: str | None = None
    passing: bool = False


NOBODY = Identity(None, "nobody who is known here")

Prove = Callable[[object], Awaitable[Identity]]
"""Asks who is at the other end of a socket; never raises."""
