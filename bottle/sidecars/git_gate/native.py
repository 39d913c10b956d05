"""The agent's second door: git's own protocol (git://) over a unix socket, for what the first one serves.

One connection is one request. It always answers in version 0 of the protocol, where a client may ask for what a ref
leads to and for nothing else; a client that offers another version has to take that (gitprotocol-pack(5)).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from bottle.sidecars.git_gate.gate import WANTS_BYTES, Gate
from bottle.sidecars.git_gate.hook import worded
from bottle.sidecars.git_gate.line import BLOCK, Line, Silence
from bottle.sidecars.git_gate.packets import FLUSH, Body, PushHead, UnfitPush, packet, read_head, refused_push
from bottle.sidecars.git_gate.repository import Refusal, Repository, declared
from bottle.sidecars.git_gate.request import read_request
from bottle.sidecars.git_gate.said import say
from bottle.sidecars.git_gate.service import Service, start


class NativeDoor:
    """Answers connections. Of what the agent sends, only a declared name and one of two services reach git."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._limits = gate.limits
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_unix_server(self._accepted, path=path, limit=BLOCK)

    async def aclose(self) -> None:
        """End every connection."""
        for each in self._open:
            each.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._limits.connections:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(Line(reader, writer, self._limits.idle_s)))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, line: Line) -> None:
        """Answer one request, whatever it is, and close."""
        try:
            async with asyncio.timeout(self._limits.request_s):
                await line.finish(await self._answer(line))
        except TimeoutError:
            self._gate.denied("-", "connect", "a request took too long")
        except (Silence, ConnectionError):
            pass  # there is nobody to tell
        finally:
            line.abort()

    async def _answer(self, line: Line) -> bytes:
        """Serve a request; returns the last word to its client."""
        name, action = "-", "connect"
        try:
            body = Body(line.read)
            request = await line.at_once(read_request(body))
            action = "fetch" if request.service == "git-upload-pack" else "push"
            repository = declared(self._gate.repositories, request.name)
            name = repository.name
            with self._gate.bounds.request():
                return await (self._fetch if action == "fetch" else self._push)(line, body, repository)
        except Refusal as refusal:
            self._gate.denied(name, action, str(refusal))
            return packet(b"ERR " + worded(str(refusal)).rstrip(b"\n"))
        except Silence as silence:
            if action != "connect":
                self._gate.denied(name, action, str(silence))
            raise

    async def _fetch(self, line: Line, body: Body, repository: Repository) -> bytes:
        await repository.refresh()
        service = await start("git-upload-pack", repository, self._limits, stateless=False, hooks=self._gate.hooks)

        async def ask() -> None:
            if await body.first(4) not in (b"", FLUSH):  # else the refs were all it wanted
                self._gate.allowed(repository.name, "fetch")
            await _feed(service, body, b"", WANTS_BYTES)

        await self._exchange(line, service, ask())
        return b""

    async def _push(self, line: Line, body: Body, repository: Repository) -> bytes:
        repository.expect()
        await repository.refresh(self._limits.fresh_s, hold=True)
        repository.require_room()
        listing = await start("git-receive-pack", repository, self._limits, advertise=True, hooks=self._gate.hooks)
        listing.stdin.close()
        await self._exchange(line, listing, None)
        head: PushHead | None = None
        try:
            async with line.lively():
                if await body.first(4) in (b"", FLUSH):
                    return b""  # it has nothing to push
                head = await read_head(body, self._limits.updates)
            if b"side-band-64k" not in head.features:
                raise Refusal("a push by git:// needs side-band-64k, by which reasons reach the client")
            if any(each.split()[1].strip("0") for each in head.updates):
                # Between its commands and its pack git says nothing for as long as it looks for deltas. Nothing of
                # ours is held for it meanwhile but its place among the requests.
                async with line.lively(self._limits.pack_s):
                    await body.first(1)
            await self._receive(line, repository, body, head)
            return b""
        except Refusal as refusal:
            head = refusal.head if isinstance(refusal, UnfitPush) else head
            self._gate.denied(repository.name, "push", str(refusal))
            return refused_push(head, worded(str(refusal)))

    async def _receive(self, line: Line, repository: Repository, body: Body, head: PushHead) -> None:
        async with self._gate.hooks.expected(repository, head.updates, self._gate.bounds.pushing) as push:
            try:
                service = await start("git-receive-pack", repository, self._limits, hooks=self._gate.hooks, push=push)
                await self._exchange(line, service, _feed(service, body, head.raw, None))
                if not push.asked:
                    self._gate.denied(repository.name, "push", "git itself refused it, before it was scanned")
            except ConnectionError:
                if not push.asked:
                    self._gate.denied(repository.name, "push", "it broke off before it was scanned")
                raise

    async def _exchange(self, line: Line, service: Service, feed: Coroutine[Any, Any, None] | None) -> None:
        """Hand on what git answers, while it is fed. Raises what the feeding raised."""
        feeding = None if feed is None else asyncio.create_task(feed)
        try:
            async with line.lively():
                async for block in service.blocks():
                    await line.write(block)
            status, text = await service.ended()
            if feeding is not None and feeding.done():
                feeding.result()
            if status != 0:
                say({"event": "git-service", "status": status, "said": text[-1000:]})
            if status < 0:
                raise ConnectionAbortedError("an answer that broke off must not look like a whole one")
        finally:
            try:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.wait([feeding])
            finally:
                await service.kill()


async def _feed(service: Service, body: Body, first: bytes, most: int | None) -> None:
    """Hand a client's bytes to git, until one of them has enough. Raises Refusal where they are over `most`.

    Of a push git itself reads no more than it may, and what comes behind its pack isn't read at all.
    """
    into = service.stdin
    taken = 0
    try:
        into.write(first)
        while block := await body.some():
            taken += len(block)
            if most is not None and taken > most:
                await service.kill()
                raise Refusal(f"a fetch may ask for {most >> 20} MiB at most")
            into.write(block)
            await into.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has its answer ready, and what is still coming is taken at the end; or its client has left
    finally:
        into.close()
