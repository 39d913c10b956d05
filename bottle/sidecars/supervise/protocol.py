"""MCP as far as a server of tools goes: JSON-RPC messages in, one answer each.

Facts: the protocol's revisions 2024-11-05 to 2025-11-25, of which a stateless server without sessions, notifications or
streams of its own is a part.
"""

from __future__ import annotations

import json
from typing import Any

from bottle.sidecars.supervise.desk import Desk
from bottle.sidecars.supervise.tools import BadCall, call, listed

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
PARSE, REQUEST, METHOD, PARAMS = -32700, -32600, -32601, -32602
INSTRUCTIONS = (
    "This bottle reaches only what its operator grants. Use these tools to see what is granted and to ask for more; a "
    "person decides, outside the bottle. `pending` means that nobody has decided yet: go on without, and ask "
    "proposal_status later. A rejected proposal stays rejected."
)


class Server:
    """One bottle's tools. `answer` is the whole of it."""

    def __init__(self, desk: Desk, offered: tuple[str, ...]) -> None:
        self._desk = desk
        self._offered = offered

    async def answer(self, body: bytes) -> dict[str, Any] | None:
        """Return the answer to one message, None for one that wants none. Several in one are refused."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return _error(None, PARSE, "the body is no JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return _error(None, REQUEST, "one JSON-RPC 2.0 message at a time")
        identity, method = message.get("id"), message.get("method")
        if identity is None:
            return None
        if not isinstance(identity, (str, int)) or isinstance(identity, bool) or len(str(identity)) > 128:
            return _error(None, REQUEST, "the id is no short text or number")
        if method is None:
            return None
        params = message.get("params", {})
        if not isinstance(method, str) or not isinstance(params, dict):
            return _error(identity, REQUEST, "the method or its parameters are malformed")
        return await self._request(identity, method, params)

    async def _request(self, identity: str | int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            asked = params.get("protocolVersion")
            return _result(
                identity,
                {
                    "protocolVersion": asked if asked in VERSIONS else VERSIONS[-1],
                    "capabilities": {"tools": {"listChanged": False}},
                    "serverInfo": {"name": "bottle", "version": "1"},
                    "instructions": INSTRUCTIONS,
                },
            )
        if method == "ping":
            return _result(identity, {})
        if method == "tools/list":
            return _result(identity, {"tools": listed(self._offered)})
        if method != "tools/call":
            return _error(identity, METHOD, "no such method")
        try:
            found = await call(self._desk, self._offered, str(params.get("name")), params.get("arguments"))
        except KeyError:
            return _error(identity, PARAMS, "no such tool")
        except BadCall as error:
            return _result(identity, _said({"status": "refused", "reason": str(error)}, failed=True))
        return _result(identity, _said(found, failed=found.get("status") in ("refused", "unavailable", "unknown")))


def _said(found: dict[str, Any], *, failed: bool) -> dict[str, Any]:
    text = json.dumps(found, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}], "structuredContent": found, "isError": failed}


def _result(identity: str | int, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def _error(identity: str | int | None, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": text}}
