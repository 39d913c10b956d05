"""Bytes over the tailnet as nobody's client would send them: a raw connection from one node to another's agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.parts.ops_agent import TAILNET_PORT
from tests.parts.tailscaled import Tailscaled

WAY_S = 60
"""Seconds until there is a connection: after minutes without traffic WireGuard may first have to make new keys."""


@asynccontextmanager
async def dialled(
    caller: Tailscaled, to: Tailscaled
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that the caller's tailscaled makes."""
    reader, writer = await asyncio.open_unix_connection(str(caller.socket))
    try:
        writer.write(
            b"POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: upgrade\r\n"
            b"Upgrade: ts-dial\r\nDial-Network: tcp\r\n"
            + f"Dial-Host: {to.addresses[0]}\r\nDial-Port: {TAILNET_PORT}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAY_S)
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield reader, writer
    finally:
        writer.transport.abort()


async def http_from(caller: Tailscaled, to: Tailscaled, request: bytes) -> bytes:
    """What the agent at a node answers to these bytes, until it closes."""
    async with dialled(caller, to) as (reader, writer):
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read(-1)


def whoami_request(*headers: str, close: bool = True) -> bytes:
    """A question who one is, with more headers; answered in lines of JSON."""
    lines = ["GET /v1/whoami HTTP/1.1", "Accept: application/x-ndjson", *headers]
    if not any(header.startswith("Host:") for header in headers):
        lines.append("Host: agent")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()
