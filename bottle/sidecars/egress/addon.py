"""The glue between mitmproxy's events and the decisions: it asks, refuses, injects, strips, masks, and records.

mitmproxy goes on when a hook fails, so each that judges begins by refusing, and takes that back at its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from mitmproxy import connection, http, proxy

from bottle.sidecars.egress import search
from bottle.sidecars.egress.aside import Aside
from bottle.sidecars.egress.blocks import READING, Block
from bottle.sidecars.egress.decide import Seen, Verdict, decide_connect, decide_request, stripped
from bottle.sidecars.egress.encodings import STREAMED, Unreadable, decoded, why
from bottle.sidecars.egress.heads import masked_head, masked_trailers
from bottle.sidecars.egress.passing import ANOTHER_LENGTH, Masking, Reading, masked, may_have_body
from bottle.sidecars.egress.policy import PORT, Policy
from bottle.sidecars.egress.sockets import Sockets
from opsexec.far.known_values import KnownValues

BUFFERED = 1 << 20
"""Bodies up to this size, in bytes, are read whole before they are judged, so that a refusal can be said as a 403."""

MAX_HELD_ENCODED = 4 << 20
MAX_SHOWN = 512
UNJUDGED = http.Response.make(403, "refused by the bottle's egress: it could not be judged\n", {"connection": "close"})
"""What is answered where a decision wasn't reached."""


class Gate:
    """One bottle's egress. `tokens`: slot -> value. `close`: ends a client connection, by its id."""

    def __init__(self, bottle: str, tokens: dict[str, str], known: list[tuple[str, str]], policy: Policy) -> None:
        self.bottle = bottle
        self.policy = policy
        self.close: Callable[[str], None] = lambda _: None
        self.asks: Callable[[str, int], None] = lambda _client, _change: None
        self._tokens = tokens
        # A slot keeps its own name beside a variable that is called as it is.
        self._known = KnownValues({**{f"{slot} of a route": token for slot, token in tokens.items()}, **dict(known)})
        self._masked = KnownValues(tokens)
        self._tunnels: dict[str, tuple[str, int]] = {}
        self.sockets = Sockets(self._known, self._masked, self._shut_for)
        self._aside = Aside()

    def adopt(self, policy: Policy) -> None:
        """Go by another policy from here on; what the old one let in stays only where the new one says the same."""
        before, self.policy = self.policy, policy
        for client, (host, _) in list(self._tunnels.items()):
            if before.route(host) != policy.route(host):
                self.close(client)

    # -- connections ----------------------------------------------------------------------------------------------

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Decide a tunnel by its target alone; nothing is looked up before."""
        flow.response = UNJUDGED
        host, port = flow.request.host, flow.request.port
        verdict = decide_connect(self.policy, host, port)
        leak = search.find(self._known, host.encode("latin-1", "replace"))
        if leak is not None:
            verdict = Verdict.no(f"the name holds the value of {leak}")
        if flow.client_conn.tls_established or flow.client_conn.id in self._tunnels:
            verdict = Verdict.no("a tunnel inside a tunnel")
        if not verdict.allow:
            self._refuse(flow, verdict.reason)
            return
        self._tunnels[flow.client_conn.id] = (host, port)
        flow.response = None

    def client_disconnected(self, client: connection.Client) -> None:
        """Forget a connection."""
        self._tunnels.pop(client.id, None)
        self.sockets.forget(client)

    def server_disconnected(self, data: proxy.server_hooks.ServerConnectionHookData) -> None:
        """Forget a connection."""
        self.sockets.forget(data.server)

    def server_connect(self, data: proxy.server_hooks.ServerConnectionHookData) -> None:
        """Refuse, once more, a dial that no tunnel stands for."""
        data.server.error = "not judged"
        tunnel = self._tunnels.get(data.client.id)
        if tunnel is None or data.server.address != tunnel or data.server.transport_protocol != "tcp":
            data.server.error = "no tunnel leads there"
        else:
            data.server.error = None

    # -- requests -------------------------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Judge a request before its body is read."""
        flow.response = UNJUDGED
        self.asks(flow.client_conn.id, 1)
        request = flow.request
        headers = [(name, value) for name, value in request.headers.fields]
        verdict = decide_request(self.policy, self._seen(flow))
        if verdict.allow:
            leak = self._find_in_head(flow, headers)
            if leak is not None:
                verdict = Verdict.no(f"the request holds the value of {leak}")
        route = verdict.route
        token = None
        if verdict.allow and route is not None and route.slot is not None:
            token = self._tokens.get(route.slot)
            if token is None:
                verdict = Verdict.no("the credential of this route is missing")
        if not verdict.allow or route is None:
            self._refuse(flow, verdict.reason)
            return
        kept = stripped(headers, route)
        if token is not None:
            kept = [(name, value) for name, value in kept if name.lower() != b"accept-encoding"]
            kept.append((b"authorization", f"{route.scheme} {token}".encode()))
            kept.append((b"accept-encoding", b"identity"))  # what comes back is read for the token
        request.headers = http.Headers(kept)
        flow.metadata["slot"] = route.slot
        length = request.headers.get("content-length", "")
        # HTTP/2 doesn't say beforehand whether there is a body: one without a length is read as it passes.
        of_any_size = "transfer-encoding" in request.headers or (request.http_version == "HTTP/2.0" and not length)
        if of_any_size or (length.isdigit() and int(length) > BUFFERED):
            self._read_as_it_passes(flow)
            return
        if not length.strip("0"):
            self._record(flow, "allow", "route", route.slot)
        flow.response = None

    def _read_as_it_passes(self, flow: http.HTTPFlow) -> None:
        encoding = flow.request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and encoding not in STREAMED:
            self._refuse(flow, "a body of this size in this content-encoding can't be read as it passes")
            return
        flow.metadata[READING] = Reading(self._known, encoding, flow.request.headers.get("content-length", ""))
        self._record(flow, "allow", "route", flow.metadata["slot"])
        flow.request.stream = lambda _: []  # what goes on is what `request_block` lets go on
        flow.response = None

    async def request_block(self, block: Block) -> None:
        """Judge a block of a body that is read as it passes."""
        reading: Reading = block.flow.metadata[READING]
        try:
            passed = await self._aside.do(len(block.data), lambda: reading.feed(block.data))
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing of it goes on, and that is written down
            passed, reading.refused = [], f"the body {why(error)}"
        if reading.refused:
            self._record(block.flow, "deny", reading.refused, None)
        block.passed, block.refused = passed, reading.refused

    async def request(self, flow: http.HTTPFlow) -> None:
        """Judge a body that was read whole."""
        flow.request.trailers = None
        body = flow.request.raw_content
        if flow.response is not None or body is None:  # refused, or read as it passed
            return
        flow.response = UNJUDGED
        if len(body) != int(flow.request.headers.get("content-length", len(body))):
            self._refuse(flow, ANOTHER_LENGTH)
            return
        if not body:
            flow.response = None
            return
        encoding = flow.request.headers.get("content-encoding", "identity").lower()
        try:
            leak = await self._aside.do(len(body), lambda: self._find_in_body(body, encoding))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is refused, told and written down
            self._refuse(flow, f"the body {why(error)}")
            return
        if leak is not None:
            self._refuse(flow, f"the body holds the value of {leak}")
            return
        self._record(flow, "allow", "route", flow.metadata.get("slot"))
        flow.response = None

    def _find_in_body(self, body: bytes, encoding: str) -> str | None:
        found = search.find_in_body(self._known, body)
        if found is None and encoding != "identity":
            found = search.find_in_body(self._known, decoded(body, encoding))
        return found

    def _seen(self, flow: http.HTTPFlow) -> Seen:
        request = flow.request
        return Seen(
            tunnel=self._tunnels.get(flow.client_conn.id),
            tls=flow.client_conn.tls_established,
            sni=flow.client_conn.sni,
            scheme=request.scheme,
            host=request.host,
            port=request.port,
            authority=request.authority,
            method=request.data.method.decode("latin-1"),  # as it goes on: `method` is in upper case whatever came
            target=request.path,
            headers=request.headers.fields,
            http_version=request.http_version,
            malformed=flow.error is not None,
        )

    def _find_in_head(self, flow: http.HTTPFlow, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Look for a known value in the target and in what goes on of the headers: values, names, and both in turn."""
        target = flow.request.path.encode("latin-1", "replace")
        kept = [each for each in headers if each[0].lower() not in (b"authorization", b"proxy-authorization")]
        texts = [[value for _, value in kept], [name for name, _ in headers], [text for each in kept for text in each]]
        return search.find(self._known, b"\n".join([target, *(b" ".join(each) for each in texts)]))

    # -- responses ------------------------------------------------------------------------------------------------

    def _mask_head(self, response: http.Response) -> None:
        reason = response.reason.encode("latin-1", "replace")
        kept, reason = masked_head(self._masked, response.headers.fields, reason)
        response.headers, response.reason = http.Headers(kept), reason.decode("latin-1")

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let a response stream through; where a credential was injected, its echo is masked on the way."""
        response = flow.response
        if response is None:
            return
        if response.status_code == 101:
            if self._sent_a_token(flow):
                self._mask_head(response)
            return
        response.stream = lambda _: []
        if response.status_code < 200:  # what was said before an answer, taken for it: its reader would wait for ever
            self._record(flow, "deny", "what came is no answer", None)
            flow.kill()
            return
        for name in ("alt-svc", "public-key-pins"):
            response.headers.pop(name, None)
        if not self._sent_a_token(flow):
            response.stream = True
            return
        self._mask_head(response)
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding == "identity" or not may_have_body(flow.request.method, response.status_code):
            response.stream = Masking(self._masked).feed
        elif encoding in STREAMED:
            response.stream = Masking(self._masked, encoding).feed
            self._as_it_comes(flow, response)
        elif 0 < self._length(response) <= MAX_HELD_ENCODED:
            response.stream = False
        else:
            self._record(flow, "deny", "a response in an encoding that wasn't asked for and can't be read", None)
            flow.kill()

    def _as_it_comes(self, flow: http.HTTPFlow, response: http.Response) -> None:
        """Say that this response has no encoding any more, and no length."""
        response.headers.pop("content-encoding", None)
        response.headers.pop("content-length", None)
        if flow.client_conn.alpn != b"h2" and "transfer-encoding" not in response.headers:
            response.headers["transfer-encoding"] = "chunked"

    @staticmethod
    def _length(message: http.Message) -> int:
        length = message.headers.get("content-length", "")
        return int(length) if length.isdigit() and len(length) < 16 else 0

    def response(self, flow: http.HTTPFlow) -> None:
        """Mask the token in a response that was read whole because it is encoded."""
        self.asks(flow.client_conn.id, -1)
        response = flow.response
        if response is None or not self._sent_a_token(flow):
            return
        if response.trailers is not None:
            kept = masked_trailers(self._masked, response.headers.fields, response.trailers.fields)
            response.trailers = http.Headers(kept)
        if response.stream or not response.raw_content:
            return
        body, response.raw_content = response.raw_content, b""
        try:
            plain = decoded(body, response.headers.get("content-encoding", "identity").lower())
        except Unreadable:
            self._record(flow, "deny", "a response whose content-encoding can't be read", None)
            flow.kill()
            return
        response.headers.pop("content-encoding", None)
        response.content = masked(self._masked, plain)

    def error(self, flow: http.HTTPFlow) -> None:
        """Count a request out that gets no answer."""
        self.asks(flow.client_conn.id, -1)

    def _sent_a_token(self, flow: http.HTTPFlow) -> bool:
        return flow.metadata.get("slot") is not None and not flow.metadata.get("refused")

    # -- WebSocket ------------------------------------------------------------------------------------------------

    def websocket_start(self, flow: http.HTTPFlow) -> None:
        """Count it as a request that is being answered."""
        self.asks(flow.client_conn.id, 1)

    async def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Judge what the agent says, joined to the end of what it said before; mask what comes back."""
        assert flow.websocket is not None
        message = flow.websocket.messages[-1]
        message.drop()
        del flow.websocket.messages[:-1]
        if not message.from_client:
            said = message.content
            if self._sent_a_token(flow):
                said = self.sockets.heard(flow.server_conn, said)
            if said is None:
                self._shut(flow.client_conn)
                return
            message.content = said
        elif (reason := await self._refusal_of_message(message.content)) is not None:
            self._shut_for(flow.client_conn, reason)
            return
        elif flow.client_conn.id not in self._tunnels or not self.sockets.sent(flow.client_conn, message.content):
            return
        message.dropped = False

    async def _refusal_of_message(self, content: bytes) -> str | None:
        try:
            leak = await self._aside.do(len(content), lambda: self._find_in_body(content, "identity"))
        except Exception as error:  # noqa: BLE001  # whatever it is, the WebSocket ends, and why is written down
            return f"a WebSocket message {why(error)}"
        return None if leak is None else "a WebSocket message holds a value of this bottle"

    def beside(self, conn: connection.Connection, data: bytes) -> bytes | None:
        """Return what goes on of what is said on a WebSocket beside its messages; None: nothing does any more."""
        if isinstance(conn, connection.Client) and conn.id not in self._tunnels:
            return None
        return self.sockets.beside(conn, data)

    def _shut_for(self, conn: connection.Connection, reason: str) -> None:
        """Write down why a WebSocket ends, and end it; the upstream's end goes with the agent's."""
        client = isinstance(conn, connection.Client)
        host, port = (self._tunnels.get(conn.id) if client else conn.address) or ("", PORT)
        say(
            {"event": "egress", "bottle": self.bottle, "ts": round(time.time(), 3), "decision": "deny"}
            | {"reason": reason, "host": self._plain(host), "port": port}
        )
        if client:
            self._shut(conn)

    def _shut(self, client: connection.Connection) -> None:
        self._tunnels.pop(client.id, None)
        self.close(client.id)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Forget a WebSocket."""
        self.asks(flow.client_conn.id, -1)
        self.sockets.forget(flow.client_conn, flow.server_conn)

    # -- what is said ---------------------------------------------------------------------------------------------

    def _refuse(self, flow: http.HTTPFlow, reason: str) -> None:
        flow.metadata["refused"] = True
        self._record(flow, "deny", reason, None)
        length = flow.request.headers.get("content-length", "0")
        sized = "transfer-encoding" not in flow.request.headers and length.isdigit() and int(length) <= BUFFERED
        if not sized and flow.request.method != "CONNECT":
            flow.kill()  # its body would be read to the end before the answer could be given
            return
        flow.request.stream = False
        flow.response = http.Response.make(
            403,
            f"refused by the bottle's egress: {reason}\n",
            {"content-type": "text/plain; charset=utf-8", "x-bottle-reason": reason, "connection": "close"},
        )

    def _record(self, flow: http.HTTPFlow, decision: str, reason: str, slot: str | None) -> None:
        """Write the audit line before anything is answered or sent on. No query, no header, no body is in it."""
        request = flow.request
        path = request.path.partition("?")[0] if request.method != "CONNECT" else ""
        record: dict[str, Any] = {
            "event": "egress",
            "bottle": self.bottle,
            "ts": round(time.time(), 3),
            "decision": decision,
            "reason": reason,
            "method": self._plain(request.method),
            "host": self._plain(request.host),
            "port": request.port,
            "path": self._plain(path),
        }
        if slot is not None:
            record["injected"] = slot
        say(record)

    def _plain(self, text: str) -> str:
        """Return a text as a line takes it: bounded, and without a known value."""
        data = text.encode("utf-8", "backslashreplace")
        return "***" if search.find(self._known, data) else data.decode("utf-8", "replace")[:MAX_SHOWN]


def say(record: dict[str, Any]) -> None:
    """Write one JSON line, ASCII only: whatever a host's name holds can't end the line or steer a terminal."""
    sys.stdout.write(json.dumps(record, separators=(",", ":")) + "\n")
    sys.stdout.flush()
