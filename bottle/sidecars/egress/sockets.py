"""What goes over WebSockets, joined over its frames: a value cut over several of them is one, whoever says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy import connection

from bottle.sidecars.egress import search
from bottle.sidecars.egress.encodings import why
from opsexec.far.known_values import OVERLAP, KnownValues, Stream

MAX_CONTROL = 125
"""Bytes of a WebSocket's control frame: what is that short is searched in every layer with what was said before."""

LEAKS = "WebSocket messages hold a value of this bottle"
ECHOES = "WebSocket messages of the upstream's hold a credential of this bottle"


class Sockets:
    """One gate's. `known` may not go out, `masked` not come in; `refuse` ends a connection and says why."""

    def __init__(self, known: KnownValues, masked: KnownValues, refuse: Callable[[Any, str], None]) -> None:
        self._known, self._masked = known, masked
        self._refuse = refuse
        self._said: dict[str, bytes] = {}

    def sent(self, client: connection.Client, data: bytes) -> bool:
        """Whether what the agent says next may go on: if not, nothing does any more."""
        whole = self._said.get(client.id, b"") + data
        depth = 0 if len(data) > MAX_CONTROL else search.MAX_DEPTH
        try:
            reason = None if search.find(self._known, whole, depth=depth) is None else LEAKS
        except Exception as error:  # noqa: BLE001  # mitmproxy goes on when this fails: then nothing leaves, and why is told
            reason = f"what goes over a WebSocket {why(error)}"
        if reason is not None:
            self._refuse(client, reason)
            return False
        self._remember(client, whole, self._known)
        return True

    def heard(self, server: connection.Server, data: bytes) -> bytes | None:
        """Return what the agent may hear of this, as long as it was; None where nothing more may come."""
        stream = Stream(self._masked, mask=True)
        data = stream.feed(data) + stream.feed(b"")
        whole = self._said.get(server.id, b"") + data
        if any(needle in whole for needle in self._masked.whole):
            self._refuse(server, ECHOES)
            return None
        self._remember(server, whole, self._masked)
        return data

    def beside(self, conn: connection.Connection, data: bytes) -> bytes | None:
        """Return what goes on of a ping, a pong or a goodbye; None where nothing does, and the line is closed."""
        if isinstance(conn, connection.Client):
            return data if self.sent(conn, data) else None
        assert isinstance(conn, connection.Server)
        return self.heard(conn, data)

    def forget(self, *ends: connection.Connection) -> None:
        """Forget a WebSocket by its ends."""
        for end in ends:
            self._said.pop(end.id, None)

    def _remember(self, end: connection.Connection, whole: bytes, values: KnownValues) -> None:
        if values:
            self._said[end.id] = whole[-max(values.longest, OVERLAP) :]
