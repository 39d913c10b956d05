"""The agent's door: smart HTTP over a unix socket, for declared repositories and git's two services, nothing else."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.gate import WANTS_BYTES, Gate
from bottle.sidecars.git_gate.hook import worded
from bottle.sidecars.git_gate.packets import (
    FLUSH,
    Body,
    PushHead,
    UnfitPush,
    packet,
    read_head,
    refused_push,
    refused_service,
)
from bottle.sidecars.git_gate.repository import Refusal, Repository, declared
from bottle.sidecars.git_gate.said import say
from bottle.sidecars.git_gate.service import SERVICES, Name, Service, start
from bottle.sidecars.git_gate.upload import BadRequest, Upload, malformed

_PATH = re.compile(r"/([A-Za-z0-9._-]{1,132})/(info/refs|git-upload-pack|git-receive-pack)\Z")
NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate", "Pragma": "no-cache"}


class Door:
    """Answers requests. Everything the agent sends is data here: no path, no header and no variable reaches git."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._limits = gate.limits
        self.connections: set[Connection] = set()
        self.server = web.Server(self._handle)

    def protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of a connection that was just accepted."""
        return Connection(self, self._limits)

    def denied(self, method: str, why: str) -> None:
        """Say that a request was refused before it was known what for."""
        self._gate.denied("-", method, why)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.busy = True
        try:
            with self._gate.bounds.request():
                async with asyncio.timeout(self._limits.request_s):
                    return await self._answer(request)
        except Refusal as error:
            self.denied(request.method, str(error))
            return connection.refusal(503, str(error))
        except BadRequest as error:
            self.denied(request.method, error.text)
            return connection.refusal(error.status, error.text)
        except TimeoutError:
            self.denied(request.method, "a request took too long")
            return connection.refusal(408, f"no request may take longer than {self._limits.request_s:g} s")
        except ConnectionError:
            return connection.refusal(400, "the client has left")
        finally:
            connection.rest()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, mark, query = request.raw_path.partition("?")
        found = _PATH.match(path)
        if found is None:
            raise BadRequest(403, "the gate serves declared repositories, by git's smart HTTP alone")
        try:
            repository = declared(self._gate.repositories, found[1])
        except Refusal as refusal:
            raise BadRequest(404, str(refusal)) from None
        if found[2] == "info/refs":
            service = SERVICES.get(query.removeprefix("service="))
            if request.method != "GET" or not query.startswith("service=") or service is None:
                raise BadRequest(403, "the gate serves git's smart HTTP alone: upload-pack and receive-pack")
            return await self._advertise(request, repository, service)
        service = SERVICES[found[2]]
        if request.method != "POST" or mark:
            raise BadRequest(405, "a service takes a POST")
        if request.headers.get("Content-Type") != f"application/x-{service}-request":
            raise BadRequest(415, f"a body for {service} has its own content type")
        cap = self._limits.body_bytes if service == "git-receive-pack" else WANTS_BYTES
        upload = Upload(request, cap=cap, idle_s=self._limits.idle_s)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if service == "git-upload-pack":
            return await self._fetch(request, repository, upload)
        return await self._push(request, repository, upload)

    async def _advertise(self, request: web.BaseRequest, repository: Repository, name: Name) -> web.StreamResponse:
        """Refresh, then list the refs. A mirror that can't be refreshed lists nothing."""
        kind = f"application/x-{name}-advertisement"
        fetching = name == "git-upload-pack"
        if not fetching:
            repository.expect()
        try:
            await repository.refresh(0.0 if fetching else self._limits.fresh_s, hold=not fetching)
        except Refusal as refusal:
            self._gate.denied(repository.name, "fetch" if fetching else "push", str(refusal))
            text = worded(str(refusal)).decode().rstrip("\n")
            return web.Response(body=refused_service(name, text), content_type=kind, headers=NO_CACHE)
        service = await start(name, repository, self._limits, advertise=True, hooks=self._gate.hooks)
        service.stdin.close()
        head = packet(f"# service={name}\n".encode()) + FLUSH
        return await self._stream(request, service, f"{kind}", head)

    async def _fetch(self, request: web.BaseRequest, repository: Repository, upload: Upload) -> web.StreamResponse:
        try:
            await repository.refresh(self._limits.fresh_s)
        except Refusal as refusal:
            await upload.drain()
            self._gate.denied(repository.name, "fetch", str(refusal))
            body = packet(b"ERR " + worded(str(refusal)).rstrip(b"\n"))
            return web.Response(body=body, content_type="application/x-git-upload-pack-result", headers=NO_CACHE)
        self._gate.allowed(repository.name, "fetch")
        service = await start("git-upload-pack", repository, self._limits, advertise=False, hooks=self._gate.hooks)
        return await self._exchange(request, service, "git-upload-pack", Body(upload.read), b"")

    async def _push(self, request: web.BaseRequest, repository: Repository, upload: Upload) -> web.StreamResponse:
        kind = "application/x-git-receive-pack-result"
        body = Body(upload.read)
        head: PushHead | None = None
        try:
            head = await read_head(body, self._limits.updates)  # first: how it wants its answer is said there
            await repository.refresh(self._limits.fresh_s)
            repository.require_room()
        except Refusal as refusal:
            head = refusal.head if isinstance(refusal, UnfitPush) else head
            await upload.drain()
            self._gate.denied(repository.name, "push", str(refusal))
            return web.Response(body=refused_push(head, worded(str(refusal))), content_type=kind, headers=NO_CACHE)
        if not head.refs:  # git asks with an empty push first, before it sends a large one in chunks
            await upload.drain()
            return web.Response(body=b"", content_type=kind, headers=NO_CACHE)
        async with self._gate.hooks.expected(repository, head.updates, self._gate.bounds.pushing) as push:
            service = await start(
                "git-receive-pack", repository, self._limits, advertise=False, hooks=self._gate.hooks, push=push
            )
            response = await self._exchange(request, service, "git-receive-pack", body, head.raw)
            if not push.asked:
                self._gate.denied(repository.name, "push", "git itself refused it, before it was scanned")
            return response

    async def _exchange(
        self, request: web.BaseRequest, service: Service, name: Name, body: Body, first: bytes
    ) -> web.StreamResponse:
        """Hand the body to git while its answer is handed to the client."""
        feeding = asyncio.create_task(_feed(service, body, first))
        answering = asyncio.create_task(self._stream(request, service, f"application/x-{name}-result", b""))
        try:
            await asyncio.wait([feeding, answering], return_when=asyncio.FIRST_EXCEPTION)
            if feeding.done() and feeding.exception() is not None and not answering.done():
                answering.cancel()  # before its git is ended, whose last words are no answer
                await asyncio.wait([answering])
                await service.kill()
                feeding.result()
            response = await answering
            if not feeding.done():
                feeding.cancel()
                response.force_close()  # git answered before it had read all: what is left is no next request
            return response
        finally:
            feeding.cancel()
            answering.cancel()
            try:
                await asyncio.wait([feeding, answering])
            finally:
                await service.kill()

    async def _stream(self, request: web.BaseRequest, service: Service, kind: str, head: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={**NO_CACHE, "Content-Type": kind})
        try:
            # Nothing is begun before git has something to say: until then a refusal has a status of its own.
            async for block in service.blocks():
                async with asyncio.timeout(self._limits.idle_s):
                    if not response.prepared:
                        await self._begin(request, response, head)
                    await response.write(block)
            status, text = await service.ended()
            if not response.prepared:
                await self._begin(request, response, head)
            if status != 0:
                say({"event": "git-service", "status": status, "said": text[-1000:]})
                if request.transport is not None and status < 0:
                    request.transport.abort()  # an answer that broke off must not look like a whole one
            await response.write_eof()
            return response
        finally:
            await service.kill()

    async def _begin(self, request: web.BaseRequest, response: web.StreamResponse, head: bytes) -> None:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begun = True
        await response.prepare(request)
        if head:
            await response.write(head)


async def _feed(service: Service, body: Body, first: bytes) -> None:
    into = service.stdin
    try:
        into.write(first)
        while block := await body.some():
            into.write(block)
            await into.drain()
        into.close()
    except (BrokenPipeError, ConnectionResetError):
        while await body.some():  # git has its answer ready: the rest is taken, so that the client reads it
            pass


def _plain(status: int, text: str) -> web.Response:
    response = web.Response(status=status, text=f"git gate: {text}\n", headers=NO_CACHE)
    response.force_close()
    return response


class Connection(RequestHandler):
    """One connection. With no request under way and nothing coming for `idle_s`, it is closed."""

    def __init__(self, door: Door, limits: Limits) -> None:
        self._clock = asyncio.get_running_loop()
        super().__init__(
            door.server,
            loop=self._clock,
            access_log=None,  # type: ignore[arg-type]  # None turns the log off; every decision is said
            keepalive_timeout=limits.idle_s,
            lingering_time=2.0,
            max_line_size=4096,
            max_field_size=4096,
            auto_decompress=False,
        )
        self._door = door
        self._limits = limits
        self._reaper: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self.busy = False
        self.begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._door.connections.add(self)
        super().connection_made(transport)
        if len(self._door.connections) > self._limits.connections:
            transport.abort()
        else:
            self.rest()

    def refusal(self, status: int, text: str) -> web.Response:
        """Return a refusal. An answer that was begun breaks off instead: nothing may look like the rest of it."""
        if self.begun and self._wire is not None:
            self._wire.abort()
        return _plain(status, text)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP, and an error that nobody caught; each is said in one line, without a traceback."""
        if isinstance(exc, HttpProcessingError):
            text = malformed(exc)
        else:
            status, text = 500, f"{type(exc).__name__} while it was served"
        self._door.denied("-", text)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: all that is left is to close the connection")
        return self.refusal(status, text)

    def rest(self) -> None:
        """From here on it has `idle_s` to bring its next request whole, up to the body."""
        self.busy = self.begun = False
        self._stop_reaper()
        self._reaper = self._clock.call_later(self._limits.idle_s, self._reap)

    def _stop_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None

    def _reap(self) -> None:
        if not self.busy and self._wire is not None:
            self._wire.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._stop_reaper()
        self._door.connections.discard(self)
        super().connection_lost(exc)
