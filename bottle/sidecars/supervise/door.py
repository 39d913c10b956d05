"""The HTTP of the MCP server: one path, POST alone, small bodies, and nobody from a web page.

Streamable HTTP asks for a check of Origin, since a page that a browser shows can reach a server on loopback. Here no
page has any business, so an Origin is refused whatever it says, and Host must name this very door.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import h11

PATH = b"/mcp"
MAX_BODY = 64 << 10
MAX_HEAD = 16 << 10
MAX_CLIENTS = 16
BLOCK = 16 << 10
REQUEST_S = 10.0
IDLE_S = 120.0
LINGER_S = 1.0

Answer = Callable[[bytes], Awaitable["dict[str, Any] | None"]]


class Refused(Exception):
    """A request that isn't taken: `status` and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UnknownVersion(Refused):
    """How a client finds out which revisions there are: nothing to write down."""


class Door:
    """`door`: `host:port` of itself, as the agent sees it. `versions`: what MCP-Protocol-Version may say.

    `refused` is told of each refusal.
    """

    def __init__(self, answer: Answer, door: str, versions: tuple[str, ...], refused: Callable[[str], None]) -> None:
        self._answer = answer
        port = door.rpartition(":")[2]
        self._hosts = {door.encode(), f"localhost:{port}".encode()}
        self._versions = {each.encode() for each in versions}
        self._refused = refused
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if len(self._open) >= MAX_CLIENTS:
            self._refused(f"over {MAX_CLIENTS} connections")
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError):  # it went away, or said nothing for too long
            pass
        finally:
            del self._open[task]
            writer.close()

    async def aclose(self) -> None:
        """End every connection."""
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            await asyncio.wait(list(self._open), timeout=1.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while True:
            try:
                body = await self._request(wire, reader, writer)
                if body is None:
                    return
                said = await self._answer(body)
                status, data = (202, b"") if said is None else (200, json.dumps(said).encode())
            except Refused as error:
                if not isinstance(error, UnknownVersion):
                    self._refused(str(error))
                status, data = error.status, json.dumps(_rejection(str(error))).encode()
            except h11.RemoteProtocolError as error:
                self._refused("no readable HTTP request")
                status, data = error.error_status_hint, json.dumps(_rejection("no readable HTTP request")).encode()
            await _respond(wire, writer, status, data)
            if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
                await _linger(reader, writer)
                return
            wire.start_next_cycle()

    async def _request(
        self, wire: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Return a request's body once its head is found fit; None at the end of the connection."""
        head = await self._event(wire, reader, IDLE_S)
        if not isinstance(head, h11.Request):
            return None
        self._judge(head)
        if wire.they_are_waiting_for_100_continue:
            writer.write(wire.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        body = b""
        async with asyncio.timeout(REQUEST_S):
            while True:
                event = await self._event(wire, reader, REQUEST_S)
                if isinstance(event, h11.EndOfMessage):
                    return body
                if not isinstance(event, h11.Data):
                    return None
                body += event.data
                if len(body) > MAX_BODY:
                    raise Refused(413, f"a body over {MAX_BODY >> 10} KiB")

    async def _event(self, wire: h11.Connection, reader: asyncio.StreamReader, within_s: float) -> Any:
        async with asyncio.timeout(within_s):
            while True:
                event = wire.next_event()
                if event is not h11.NEED_DATA:
                    return event
                wire.receive_data(await reader.read(BLOCK))

    def _judge(self, head: h11.Request) -> None:
        found: dict[bytes, list[bytes]] = {}
        for name, value in head.headers:
            found.setdefault(name, []).append(value)
        if found.get(b"host", [b""])[0].lower() not in self._hosts:
            raise Refused(403, "Host names another place than this door")
        if b"origin" in found:
            raise Refused(403, "an Origin: no web page speaks for the agent")
        if head.target.partition(b"?")[0] != PATH:
            raise Refused(404, "no such path")
        if head.method != b"POST":
            raise Refused(405, "POST alone is served")
        kinds = [each.partition(b";")[0].strip().lower() for each in found.get(b"content-type", [])]
        if kinds != [b"application/json"]:
            raise Refused(415, "the body is not application/json")
        if any(each not in self._versions for each in found.get(b"mcp-protocol-version", [])):
            raise UnknownVersion(400, "a protocol version that isn't known here")
        if b"content-length" in found and b"transfer-encoding" in found:
            raise Refused(400, "two lengths of one body")
        length = found.get(b"content-length", [b"0"])[0]
        if int(length) > MAX_BODY:
            raise Refused(413, f"a body over {MAX_BODY >> 10} KiB")


def _rejection(reason: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": reason}}


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take some of what is still sent: closed before that, TCP's reset may take the answer along (RFC 9112, 9.6)."""
    if writer.can_write_eof():
        writer.write_eof()
    left = MAX_BODY
    try:
        async with asyncio.timeout(LINGER_S):
            while left > 0 and (block := await reader.read(BLOCK)):
                left -= len(block)
    except TimeoutError:
        return


async def _respond(wire: h11.Connection, writer: asyncio.StreamWriter, status: int, data: bytes) -> None:
    headers = [("content-length", str(len(data)))]
    if data:
        headers.append(("content-type", "application/json"))
    if status == 405:
        headers.append(("allow", "POST"))
    if wire.their_state is not h11.DONE:
        headers.append(("connection", "close"))
    response = h11.Response(status_code=status, headers=headers)
    for event in (response, h11.Data(data=data), h11.EndOfMessage()):
        writer.write(wire.send(event) or b"")
    async with asyncio.timeout(REQUEST_S):
        await writer.drain()
