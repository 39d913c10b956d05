"""Calls over the test's own tailnet, from one of its nodes."""

from __future__ import annotations

from typing import Any

from opsexec import AgentRpc, CapabilitySet, NullAudit
from tests.parts.tailnet import Tailnet


def rpc(net: Tailnet, caller: str, url: str = "tailnet://server", **more: Any) -> AgentRpc:
    return AgentRpc(
        url,
        capabilities=CapabilitySet.everything(),
        audit=NullAudit(),
        tailscaled_socket=str(net[caller].socket),
        **more,
    )
