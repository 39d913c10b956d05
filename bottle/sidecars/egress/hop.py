"""The hop behind egress: a proxy on the bundle's own loopback that each dial goes through once its name is checked."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

HEAD = 16 << 10
WITHIN_S = 30.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ?([^\r\n]{0,100})")
_ADDRESS = re.compile(r"(127\.0\.0\.1):([0-9]{1,5})\n\Z")


class NoWay(OSError):
    """The hop isn't there, or won't take this dial; its text is a reason for the audit."""


class Hop:
    """`address`: the file that says where it listens now. There is none while it doesn't, and then nothing leaves."""

    def __init__(self, address: Path) -> None:
        self._address = address

    async def tunnel(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
        """Return a connection that the hop has joined to this name; raises NoWay."""
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            line.setblocking(False)
            async with asyncio.timeout(WITHIN_S):
                await loop.sock_connect(line, self._where())
                name = f"{host}:{port}"
                await loop.sock_sendall(line, f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode("ascii"))
                self._require_taken(await self._head(loop, line))
        except NoWay:
            line.close()
            raise
        except (OSError, TimeoutError) as error:
            line.close()
            raise NoWay("the second hop doesn't answer") from error
        except asyncio.CancelledError:
            line.close()
            raise
        return line

    def _where(self) -> tuple[str, int]:
        try:
            found = _ADDRESS.match(self._address.read_text("ascii"))
        except (OSError, UnicodeDecodeError):
            found = None
        if found is None:
            raise NoWay("the second hop is down")
        return found[1], int(found[2])

    async def _head(self, loop: asyncio.AbstractEventLoop, line: socket.socket) -> bytes:
        """Read the answer's head and nothing behind it: what follows is the other side's, once it is spoken to."""
        head = b""
        while b"\r\n\r\n" not in head:
            block = await loop.sock_recv(line, HEAD - len(head))
            if not block:
                break
            head += block
        return head

    def _require_taken(self, head: bytes) -> None:
        status = _STATUS.match(head)
        if status is None:
            raise NoWay("the second hop doesn't answer")
        if status[1] != b"200":
            raise NoWay(f"the second hop refused it ({status[1].decode()})")
        if not head.endswith(b"\r\n\r\n"):
            raise NoWay("the second hop spoke before it was spoken to")
