"""`fake_localapi`: answers as tailscaled's LocalAPI does, for what a tailnet of ours can't show.

headscale shares no nodes between tailnets, and a real tailscaled neither hangs nor lies.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

SELF = {"ID": "n-self", "DNSName": "here.tail.test.", "TailscaleIPs": ["100.64.0.9"], "Online": True}


def whois_answer(**changes: Any) -> dict[str, Any]:
    """Alice's laptop, with changes to its node, or to its user under `UserProfile`."""
    profile = {"ID": 7, "LoginName": "alice@example.com", **changes.pop("UserProfile", {})}
    node = {
        "ID": 3,
        "StableID": "n-laptop",
        "Name": "laptop.tail.test.",
        "User": 7,
        "Addresses": ["100.64.0.4/32", "fd7a:115c:a1e0::4/128"],
        "KeyExpiry": "2999-01-01T00:00:00Z",
        **changes,
    }
    return {"Node": node, "UserProfile": profile, "CapMap": None}


class FakeLocalApi:
    """One socket. `whois` is what is answered about everybody: JSON, bytes as they are, a status, or a time to hang.

    `dials`: what the first dials are answered, before `dial` holds; `left`: how many hung ones their caller has left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.whois: Any = whois_answer()
        self.status: dict[str, Any] = {"BackendState": "Running", "TUN": False, "Self": SELF, "Peer": {}}
        self.status |= {"CurrentTailnet": {"MagicDNSSuffix": "tail.test"}}
        self.dial: Any = 502
        self.dials: list[Any] = []
        self.left = 0
        self.asked: list[str] = []
        self.released = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            target = head.split()[1]
            self.asked.append(target)
            if "\r\nHost: local-tailscaled.sock\r\n" not in head:
                answer: Any = 403
            else:
                known = {"status": self.status, "whois": self.whois, "dial": self.dial}
                asked = target.partition("?")[0].rpartition("/")[2]
                answer = self.dials.pop(0) if asked == "dial" and self.dials else known[asked]
            if answer == "hang":
                await self._hang(reader)
                return
            writer.write(answer if isinstance(answer, bytes) else _http(answer))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # who asked went away
        finally:
            writer.close()

    async def _hang(self, reader: asyncio.StreamReader) -> None:
        """Say nothing until the caller leaves, or this ends."""
        leaving = asyncio.ensure_future(reader.read(1))
        released = asyncio.ensure_future(self.released.wait())
        await asyncio.wait([leaving, released], return_when=asyncio.FIRST_COMPLETED)
        self.left += leaving.done()
        for each in (leaving, released):
            each.cancel()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeLocalApi]:
        """Answer while the block lasts."""
        server = await asyncio.start_unix_server(self._serve, str(self.path))
        try:
            yield self
        finally:
            self.released.set()
            server.close()
            await server.wait_closed()
            if os.path.lexists(self.path):
                self.path.unlink()


def _http(answer: Any) -> bytes:
    if isinstance(answer, int):
        return f"HTTP/1.1 {answer} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    body = json.dumps(answer).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
