"""The glue between mitmproxy's events and the decisions: it asks, refuses, injects, strips, masks, and records."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from mitmproxy import connection, http, proxy

from bottle.sidecars.egress.decide import Seen, Verdict, decide_connect, decide_request, stripped
from bottle.sidecars.egress.known import KnownValues, Stream
from bottle.sidecars.egress.policy import Policy

BUFFERED = 1 << 20
"""Bodies up to this size, in bytes, are read whole before they are judged, so that a refusal can be said as a 403."""

MAX_ENCODED = 32 << 20
MAX_SHOWN = 512


class Gate:
    """One bottle's egress. `tokens`: slot -> value. `close`: ends a client connection, by its id."""

    def __init__(self, bottle: str, tokens: dict[str, str], known: list[tuple[str, str]], policy: Policy) -> None:
        self.bottle = bottle
        self.policy = policy
        self.close: Callable[[str], None] = lambda _: None
        self._tokens = tokens
        self._known = KnownValues([*known, *tokens.items()])
        self._masked = KnownValues(tokens.items())
        self._tunnels: dict[str, tuple[str, int]] = {}
        self._scanners: dict[str, Stream] = {}
        self._sockets: dict[str, bytes] = {}

    # -- connections ----------------------------------------------------------------------------------------------

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Decide a tunnel by its target alone; nothing is looked up before."""
        host, port = flow.request.host, flow.request.port
        verdict = decide_connect(self.policy, host, port)
        leak = self._known.find(host.encode("latin-1", "replace"))
        if leak is not None:
            verdict = Verdict.no(f"the name holds the value of {leak}")
        if flow.client_conn.tls_established or flow.client_conn.id in self._tunnels:
            verdict = Verdict.no("a tunnel inside a tunnel")
        if not verdict.allow:
            self._refuse(flow, verdict.reason, None)
            return
        self._tunnels[flow.client_conn.id] = (host, port)

    def client_disconnected(self, client: connection.Client) -> None:
        """Forget a connection."""
        self._tunnels.pop(client.id, None)

    def server_connect(self, data: proxy.server_hooks.ServerConnectionHookData) -> None:
        """Refuse, once more, a dial that no tunnel stands for."""
        tunnel = self._tunnels.get(data.client.id)
        if tunnel is None or data.server.address != tunnel or data.server.transport_protocol != "tcp":
            data.server.error = "no tunnel leads there"

    # -- requests -------------------------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Judge a request before its body is read."""
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
            self._refuse(flow, verdict.reason, self._tunnels.get(flow.client_conn.id))
            return
        kept = stripped(headers, route)
        if token is not None:
            kept = [(name, value) for name, value in kept if name.lower() != b"accept-encoding"]
            kept.append((b"authorization", f"{route.scheme} {token}".encode()))
            kept.append((b"accept-encoding", b"identity"))  # what comes back is read for the token
        request.headers = http.Headers(kept)
        flow.metadata["slot"] = route.slot
        length = request.headers.get("content-length", "")
        whole = length.isdigit() and int(length) <= BUFFERED
        has_body = (
            bool(length and length != "0")
            or "transfer-encoding" in request.headers
            or (request.http_version == "HTTP/2.0" and request.method in ("POST", "PUT", "PATCH"))
        )
        if has_body and not whole:
            self._scan_as_it_passes(flow)
        elif not has_body:
            self._record(flow, "allow", "route", route.slot)

    def _scan_as_it_passes(self, flow: http.HTTPFlow) -> None:
        encoding = flow.request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            self._refuse(flow, "a large body in a content-encoding can't be read", self._tunnel(flow))
            return
        scanner = Stream(self._known, mask=False)
        self._record(flow, "allow", "route, the body is read as it passes", flow.metadata["slot"])

        def feed(block: bytes) -> bytes:
            before = scanner.found
            passed = scanner.feed(block)
            if scanner.found and not before:
                self._record(flow, "deny", "the body holds a value of this bottle", flow.metadata["slot"])
                self.close(flow.client_conn.id)
            return passed

        flow.request.stream = feed

    def request(self, flow: http.HTTPFlow) -> None:
        """Judge a body that was read whole."""
        flow.request.trailers = None
        if flow.response is not None or flow.request.stream or flow.request.raw_content in (None, b""):
            return
        leak = None
        try:
            leak = self._known.find(flow.request.raw_content or b"") or self._known.find(flow.request.content or b"")
        except ValueError:
            self._refuse(flow, "the body's content-encoding can't be read", self._tunnel(flow))
            return
        if leak is not None:
            self._refuse(flow, f"the body holds the value of {leak}", self._tunnel(flow))
            return
        self._record(flow, "allow", "route", flow.metadata.get("slot"))

    def _tunnel(self, flow: http.HTTPFlow) -> tuple[str, int] | None:
        return self._tunnels.get(flow.client_conn.id)

    def _seen(self, flow: http.HTTPFlow) -> Seen:
        request = flow.request
        return Seen(
            tunnel=self._tunnel(flow),
            tls=flow.client_conn.tls_established,
            sni=flow.client_conn.sni,
            scheme=request.scheme,
            host=request.host,
            port=request.port,
            authority=request.authority,
            method=request.method,
            target=request.path,
            headers=request.headers.fields,
            http_version=request.http_version,
        )

    def _find_in_head(self, flow: http.HTTPFlow, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Look for a known value in the target and in every header that goes on, one by one and all in a row."""
        target = flow.request.path.encode("latin-1", "replace")
        kept = [value for name, value in headers if name.lower() not in (b"authorization", b"proxy-authorization")]
        names = b" ".join(name for name, _ in headers)
        return self._known.find(target) or self._known.find(b" ".join(kept)) or self._known.find(names)

    # -- responses ------------------------------------------------------------------------------------------------

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let a response stream through; where a credential was injected, its echo is masked on the way."""
        response = flow.response
        if response is None or response.status_code == 101:
            return
        for name in ("alt-svc", "public-key-pins"):
            response.headers.pop(name, None)
        if not self._sent_a_token(flow):
            response.stream = True
            return
        response.headers = http.Headers([(name, self._mask(value)) for name, value in response.headers.fields])
        response.reason = self._mask(response.reason.encode("latin-1", "replace")).decode("latin-1")
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            masker = Stream(self._masked, mask=True)
            response.stream = masker.feed
            return
        length = response.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_ENCODED:
            self._record(flow, "deny", "a response of unknown size in an encoding that wasn't asked for", None)
            flow.kill()

    def response(self, flow: http.HTTPFlow) -> None:
        """Mask the token in a response that was read whole because it is encoded."""
        response = flow.response
        if response is None or not self._sent_a_token(flow):
            return
        response.trailers = None  # they would come after the mask
        if response.stream or not response.raw_content:
            return
        try:
            plain = response.content or b""
        except ValueError:
            flow.kill()
            return
        response.headers.pop("content-encoding", None)
        response.content = self._mask(plain)

    def _sent_a_token(self, flow: http.HTTPFlow) -> bool:
        return flow.metadata.get("slot") is not None and not flow.metadata.get("refused")

    def _mask(self, data: bytes) -> bytes:
        stream = Stream(self._masked, mask=True)
        return stream.feed(data) + stream.feed(b"")

    # -- WebSocket ------------------------------------------------------------------------------------------------

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Judge what the agent says, joined to the end of what it said before; mask what comes back."""
        assert flow.websocket is not None
        message = flow.websocket.messages[-1]
        if not message.from_client:
            if self._sent_a_token(flow):
                message.content = self._mask(message.content)
        else:
            before = self._sockets.get(flow.id, b"")
            said = before + message.content
            self._sockets[flow.id] = said[-self._known.longest :] if self._known.longest else b""
            if self._known.find(message.content) or self._known.find(said):
                message.drop()
                self._record(flow, "deny", "a WebSocket message holds a value of this bottle", None)
                self.close(flow.client_conn.id)
        del flow.websocket.messages[:-1]

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Forget a WebSocket."""
        self._sockets.pop(flow.id, None)

    # -- what is said ---------------------------------------------------------------------------------------------

    def _refuse(self, flow: http.HTTPFlow, reason: str, tunnel: tuple[str, int] | None) -> None:
        flow.metadata["refused"] = True
        self._record(flow, "deny", reason, None)
        length = flow.request.headers.get("content-length", "0")
        chunked = "transfer-encoding" in flow.request.headers
        if tunnel is not None and (chunked or not length.isdigit() or int(length) > BUFFERED):
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
        return "***" if self._known.find(data) else data.decode("utf-8", "replace")[:MAX_SHOWN]


def say(record: dict[str, Any]) -> None:
    """Write one JSON line, ASCII only: whatever a host's name holds can't end the line or steer a terminal."""
    sys.stdout.write(json.dumps(record, separators=(",", ":")) + "\n")
    sys.stdout.flush()
