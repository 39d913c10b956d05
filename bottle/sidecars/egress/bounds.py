"""What mitmproxy leaves unbounded, bound: heads that don't end, bodies that are held, peers that don't read, messages.

Its HTTP layers look their parts up by name in their own module, so the bounded ones take those names: `install` does
that once. Each is mitmproxy's own with one thing added.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet, finalize

from h11._readers import ChunkedReader
from mitmproxy import flow
from mitmproxy.connection import Client
from mitmproxy.net.http import status_codes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http, websocket
from mitmproxy.proxy.layers.http import _http1, _http2
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook
from wsproto.events import CloseConnection, Event, Message, Ping, Pong

from bottle.sidecars.egress.blocks import Block, RequestBlockHook

MAX_HEAD = 128 << 10
MAX_UNREAD = 256 << 10
"""Bytes that may wait for the rest of a head, of a line, or for the answer to what came before them."""

MAX_HELD = (1 << 20) + (64 << 10)
"""Bytes of a request's body that are held to be judged whole."""

MAX_HELD_RESPONSE = 4 << 20
MAX_MESSAGE = 16 << 20
"""Bytes of one WebSocket message, which is judged whole."""

MAX_HELD_BY_ALL = 128 << 20
"""Bytes of bodies and messages that are held at once, over all connections."""

MAX_WAITING = 4
"""Blocks of at most 64 KiB that may wait for a connection to be made or a body to be judged."""

MAX_QUEUED = 64
"""Frames of at most 16 KiB that may wait for an HTTP/2 peer to take them."""

CUT = "cut"
"""In a flow's metadata: why nothing more of its request may go on."""

NOT_AN_ANSWER = "the upstream's answer isn't HTTP, or breaks off"
"""What the agent is told of it: mitmproxy's own words repeat what came, and a credential may have been echoed there."""

MAX_INTERIM = 64
"""Interim answers (RFC 9110, 15.2) to one request; they are left out."""

_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}(?: |\r?\n)")

Said = Callable[[Any, bytes], bytes | None]


class Share:
    """What one holder has of the memory that all share; it goes back at the latest when the holder is gone."""

    held_by_all: ClassVar[int] = 0

    def __init__(self, holder: Any) -> None:
        self._size = 0
        finalize(holder, self.give_back).atexit = False

    def take(self, size: int) -> bool:
        """Take some more, if there is room for it."""
        if Share.held_by_all + size > MAX_HELD_BY_ALL:
            gc.collect()  # holders that only point at each other
        if Share.held_by_all + size > MAX_HELD_BY_ALL:
            return False
        Share.held_by_all += size
        self._size += size
        return True

    def give_back(self) -> None:
        """Give everything back."""
        Share.held_by_all -= self._size
        self._size = 0


class Pressure:
    """What one client's connection holds back: its requests, and its HTTP/2 connections on either side."""

    def __init__(self) -> None:
        self._layers: WeakSet[Any] = WeakSet()
        self._queues: dict[bool, WeakSet[Any]] = {True: WeakSet(), False: WeakSet()}

    def add_layer(self, parent: Any) -> None:
        """Take note of a layer with requests in it."""
        self._layers.add(parent)

    def add_queue(self, connection: Any, *, to_client: bool) -> None:
        """Take note of an HTTP/2 connection."""
        self._queues[to_client].add(connection)

    def stalls(self, *, client: bool) -> bool:
        """True while nothing more should be read: of the client, or of a server.

        Never of both for their queues: each may hold what lets the other go on.
        """
        waiting = [
            each for one in self._layers for each in one.streams.values() if len(each._paused_event_queue) > MAX_WAITING
        ]
        if not client:
            # A server's word is needed for other things that are waited for, a handshake among them.
            judged = any(each.judging for each in waiting)
            return judged or (self._queued(to_client=True) and not self._queued(to_client=False))
        return bool(waiting) or self._queued(to_client=False)

    def _queued(self, *, to_client: bool) -> bool:
        return any(
            sum(map(len, each.stream_buffers.values())) > MAX_QUEUED for each in self._queues[to_client] if each.streams
        )


_pressures: WeakKeyDictionary[Any, Pressure] = WeakKeyDictionary()


def pressure(client: Client) -> Pressure:
    """Return what a client's connection holds back."""
    found = _pressures.get(client)
    if found is None:
        found = _pressures[client] = Pressure()
    return found


class _Chunks(ChunkedReader):
    """Trailers stand behind what was judged: a request with some is refused, a response loses them."""

    def __init__(self, *, refuse: bool) -> None:
        super().__init__()
        self._refuse = refuse

    def __call__(self, buffer: Any) -> Any:
        found = super().__call__(buffer)
        if found is not None and getattr(found, "headers", None):
            if self._refuse:
                raise _http1.h11.RemoteProtocolError("trailers are not forwarded")
            found = _http1.h11.EndOfMessage()
        return found


class _Bounded(_http1.Http1Connection):
    """HTTP/1 whose buffer has a bound, and whose trailers don't end the connection's handler."""

    buf: Any
    state: Any
    _refuses_trailers = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "body_reader" and isinstance(value, ChunkedReader):
            value = _Chunks(refuse=self._refuses_trailers)
        super().__setattr__(name, value)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from super()._handle_event(event)
        most = MAX_HEAD if self.state == self.read_headers else MAX_UNREAD
        if len(self.buf) > most:
            self.buf = _http1.ReceiveBuffer()
            asked, self.state = self.request, self.done
            yield commands.Log(f"{_http1.human.format_address(self.conn.peername)}: over {most >> 10} KiB unread")
            yield commands.CloseConnection(self.conn)
            if asked is not None and self.stream_id is not None:
                yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, "too much at once"))


class BoundedServer(_Bounded, _http1.Http1Server):
    """The agent's side of HTTP/1."""

    _refuses_trailers = True


class BoundedClient(_Bounded, _http1.Http1Client):
    """The upstream's side of HTTP/1, which also gets the bodies whose length HTTP/2 didn't say."""

    _interim = 0

    def send(self, event: http.HttpEvent) -> layer.CommandGenerator[None]:
        """Send a part of a request."""
        if isinstance(event, http.RequestHeaders):
            self._interim = 0
        from_http2 = isinstance(event, http.RequestHeaders) and event.request.is_http2 and not event.end_stream
        if from_http2 and "content-length" not in event.request.headers:
            event.request.headers["transfer-encoding"] = "chunked"
        yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read an answer's head: mitmproxy would take an interim one for the answer, and its end for the end."""
        while self.request and self._interim < MAX_INTERIM and _INTERIM.match(bytes(self.buf)):
            if self.buf.maybe_extract_lines() is None:
                break
            self._interim += 1
        yield from super().read_headers(event)


class BoundedServer2(_http2.Http2Server):
    """The agent's side of HTTP/2."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        pressure(context.client).add_queue(self.h2_conn, to_client=True)


class BoundedClient2(_http2.Http2Client):
    """The upstream's side of HTTP/2."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        pressure(context.client).add_queue(self.h2_conn, to_client=False)


class _Told(http.ResponseProtocolError):
    """An error in words of this gate's own."""


_FROM_UPSTREAM = (
    http.ResponseHeaders,
    http.ResponseData,
    http.ResponseTrailers,
    http.ResponseEndOfMessage,
    http.ResponseProtocolError,
)


def _without_what_came(steps: layer.CommandGenerator[None]) -> layer.CommandGenerator[None]:
    """Yield what mitmproxy does about something of the upstream's; what it would say of it repeats nothing of it."""
    reply = None
    while True:
        try:
            command = steps.send(reply)
        except StopIteration:
            return
        if isinstance(command, http.SendHttp) and type(command.event) is http.ResponseProtocolError:
            command.event.message = NOT_AN_ANSWER
        reply = yield command


class BoundedStream(http.HttpStream):
    """One request and its answer, of which no more is held than is judged whole.

    `judging`: a block of its body is looked at, and what comes meanwhile waits.
    """

    def __init__(self, context: Context, stream_id: int) -> None:
        super().__init__(context, stream_id)
        self._share: Share | None = None
        self.judging = False
        pressure(context.client).add_layer(context.layers[-2])

    def _room_for(self, held: int, more: int, most: int) -> bool:
        self._share = self._share or Share(self)
        return held + more <= most and self._share.take(more)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        steps = super()._handle_event(event)
        yield from _without_what_came(steps) if isinstance(event, _FROM_UPSTREAM) else steps

    def state_stream_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Send a body on as it comes, until something of it may not: then neither the rest nor an end of it does."""
        if isinstance(event, (http.RequestData, http.RequestEndOfMessage)) and CUT not in self.flow.metadata:
            block = Block(self.flow, event.data if isinstance(event, http.RequestData) else b"")
            self.judging = True
            yield RequestBlockHook(block)
            self.judging = False
            for each in block.passed:
                yield http.SendHttp(http.RequestData(self.stream_id, each), self.context.server)
            if block.refused:
                self.flow.metadata[CUT] = block.refused
        if CUT not in self.flow.metadata:
            yield from super().state_stream_request_body(event)
        if CUT in self.flow.metadata:
            reason = self.flow.metadata[CUT]
            yield http.SendHttp(http.RequestProtocolError(self.stream_id, reason), self.context.server)
            yield from self._over(f"refused by the bottle's egress: {reason}", 403)
            self.client_state = self.server_state = self.state_errored

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold a body, up to the bound."""
        held = len(self.request_body_buf)
        if isinstance(event, http.RequestData) and not self._room_for(held, len(event.data), MAX_HELD):
            self.request_body_buf.clear()
            yield from self._over("the request's body is larger than it said, or too many are held", 413)
            self.client_state = self.state_errored
            return
        yield from super().state_consume_request_body(event)

    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Hold a body, up to the bound."""
        held = len(self.response_body_buf)
        if isinstance(event, http.ResponseData) and not self._room_for(held, len(event.data), MAX_HELD_RESPONSE):
            self.response_body_buf.clear()
            reason = "the response's body is too large to be held"
            yield from self._over(reason, status_codes.BAD_GATEWAY)
            error = http.RequestProtocolError(self.stream_id, reason, status_codes.BAD_GATEWAY)
            yield http.SendHttp(error, self.context.server)
            self.client_state = self.server_state = self.state_errored
            return
        yield from super().state_consume_response_body(event)

    def _over(self, reason: str, code: int) -> layer.CommandGenerator[None]:
        self.flow.error = flow.Error(reason)
        yield HttpErrorHook(self.flow)
        yield http.SendHttp(_Told(self.stream_id, reason, code), self.context.client)
        self.flow.live = False
        if self._share is not None:
            self._share.give_back()


class JudgedWebSocket(websocket.WebsocketConnection):
    """A WebSocket whose messages have a bound, and whose pings and goodbyes are judged: no hook sees those."""

    beside: Said = staticmethod(lambda _conn, _data: None)
    _size = 0
    _share: Share | None = None

    def events(self) -> Iterator[Event]:
        """Yield what arrived, until something of it may not go on."""
        for event in super().events():
            if isinstance(event, Message):
                self._size += len(event.data)
                self._share = self._share or Share(self)
                if self._size > MAX_MESSAGE or not self._share.take(len(event.data)):
                    yield CloseConnection(code=1009, reason="the message is too large to be judged")
                    return
                if event.message_finished:
                    self._size = 0
                    self._share.give_back()
            elif isinstance(event, (Ping, Pong, CloseConnection)):
                said = self.beside(self.conn, _beside(event))
                if said is None:
                    yield CloseConnection(code=1008, reason="refused by the bottle's egress")
                    return
                event = _saying(event, said)
            yield event


def _beside(event: Event) -> bytes:
    """Return what is said beside messages."""
    return bytes(event.payload) if isinstance(event, (Ping, Pong)) else (event.reason or "").encode()


def _saying(event: Event, said: bytes) -> Event:
    """Return the same event with other words."""
    if isinstance(event, (Ping, Pong)):
        return replace(event, payload=said)
    return replace(event, reason=said.decode("utf-8", "replace")) if event.reason else event


def install(beside: Said) -> None:
    """Put the bounded parts in their places. `beside`: what goes on of what is said beside messages, None: nothing."""
    http.HttpStream = BoundedStream
    http.Http1Server, http.Http1Client = BoundedServer, BoundedClient
    http.Http2Server, http.Http2Client = BoundedServer2, BoundedClient2
    websocket.WebsocketConnection = JudgedWebSocket
    JudgedWebSocket.beside = staticmethod(beside)
