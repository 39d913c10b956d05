"""Containers that come, go and change: the event stream of a container engine's own socket, where one can be read.

Docker's API and podman's compatible one: `GET /events` answers with one JSON object a line for as long as it is read.
Asked with HTTP/1.0, so that the answer has no chunks in it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from agent.events.clock import stamp
from agent.events.feed import Event
from agent.events.services import absent
from agent.events.trusted import require_trusted

EVENTS = b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.0\r\nHost: localhost\r\n\r\n"
PING = b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n"
MAX_LINE = 256 << 10
CONNECT_S = 5.0
AGAIN_S = 30.0
"""Seconds until an engine that isn't there is looked for again."""
MAX_TEXT = 300
NOISE = ("exec_create", "exec_start", "exec_die", "exec_detach", "top")
"""What a look into a container says of itself: a health check would fill the stream with it."""


class EngineEvent(msgspec.Struct, frozen=True):
    """What is taken from an engine's event; podman leaves `Action` away in none of its versions since 3."""

    Type: str = ""
    Action: str = ""
    Actor: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(EngineEvent)


def default_sockets() -> tuple[str, ...]:
    """Return where engines listen: docker, root's podman, this user's own podman."""
    runtime = f"/run/user/{os.geteuid()}"
    found = ("/run/docker.sock", "/run/podman/podman.sock", f"{runtime}/podman/podman.sock", f"{runtime}/docker.sock")
    return found[: 2 if os.geteuid() == 0 else 4]


class Containers:
    """Implements Source: one `container` event a change, of every engine whose socket this process may open."""

    def __init__(self, sockets: Sequence[str] | None = None) -> None:
        self._sockets = default_sockets() if sockets is None else tuple(sockets)
        self._open: set[str] = set()
        self._first: Event | None = None

    def now(self) -> Event | None:
        """As `Source.now`."""
        return self._first

    async def run(self, tell: Callable[[Event], None]) -> None:
        """As `Source.run`."""
        self._open.clear()
        self._first = None
        async with asyncio.TaskGroup() as group:
            for path in self._sockets:
                group.create_task(self._follow(path, tell))
            await asyncio.sleep(CONNECT_S / 5)
            if not self._open:
                self._say_state(tell)

    def _say_state(self, tell: Callable[[Event], None]) -> None:
        if self._open:
            self._first = {"ts": stamp(), "event": "containers", "engines": sorted(self._open)}
        else:
            self._first = absent("containers", "no container engine's socket can be read here")
        tell(self._first)

    async def _follow(self, path: str, tell: Callable[[Event], None]) -> None:
        while True:
            with suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._listen(path, tell)
            if path in self._open:
                self._open.discard(path)
                self._say_state(tell)
            await asyncio.sleep(AGAIN_S)

    async def _listen(self, path: str, tell: Callable[[Event], None]) -> None:
        """Pass on what one engine says until it stops. It may say nothing at all before its first event."""
        require_trusted(path)
        await _ping(path)
        reader, writer = await _ask(path, EVENTS)
        try:
            self._open.add(path)
            self._say_state(tell)
            _require_plain(await reader.readuntil(b"\r\n\r\n"))
            while line := await reader.readline():
                if (event := container_event(line, path)) is not None:
                    tell(event)
        finally:
            writer.close()


async def _ping(path: str) -> None:
    """Raise an error unless an engine answers within CONNECT_S."""
    reader, writer = await _ask(path, PING)
    try:
        async with asyncio.timeout(CONNECT_S):
            _require_plain(await reader.readuntil(b"\r\n\r\n"))
    finally:
        writer.close()


async def _ask(path: str, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
    writer.write(request)
    return reader, writer


def _require_plain(head: bytes) -> None:
    if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")) or b"chunked" in head.lower():
        raise ValueError("the engine's answer is not a plain stream")


def container_event(line: bytes, engine: str) -> Event | None:
    """Return what one line of an engine says about a container; None for what isn't worth telling."""
    try:
        said = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    action = said.Action.partition(":")[0]
    if said.Type != "container" or not action or action in NOISE:
        return None
    attributes = said.Actor.get("Attributes")
    known = attributes if isinstance(attributes, dict) else {}
    event: Event = {"ts": stamp(), "event": "container", "engine": engine, "action": said.Action[:MAX_TEXT]}
    for name, value in (("id", said.Actor.get("ID")), ("name", known.get("name")), ("image", known.get("image"))):
        event[name] = value[:MAX_TEXT] if isinstance(value, str) else None
    code = known.get("exitCode", known.get("containerExitCode")) if action in ("die", "died") else None
    if isinstance(code, str) and code.isascii() and code.isdigit():
        event["exit_code"] = int(code[:4])
    return event
