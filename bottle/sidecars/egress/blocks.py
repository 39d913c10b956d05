"""Blocks of a body that is judged as it passes: its own request waits for each, other requests don't."""

from __future__ import annotations

from dataclasses import dataclass, field

from mitmproxy import http
from mitmproxy.proxy import commands

READING = "reading"
"""In a flow's metadata: what judges its body as it passes."""

UNJUDGED_BLOCK = "the body could not be judged"


@dataclass(eq=False)
class Block:
    """What came of a request's body; empty: its end. `passed`: what may go on. `refused`: why nothing more may.

    It begins as refused: mitmproxy goes on when a hook fails.
    """

    flow: http.HTTPFlow
    data: bytes
    passed: list[bytes] = field(default_factory=list)
    refused: str = UNJUDGED_BLOCK


@dataclass
class RequestBlockHook(commands.StartHook):
    """Asks what of a block may go on."""

    name = "request_block"
    block: Block
