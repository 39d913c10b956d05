"""The tools the agent sees: their words and schemas, and what a call of each must look like. The list never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bottle.sidecars.supervise.desk import Desk

MAX_WHY = 2000
MAX_TEXT = 1000
MAX_LIST = 16
MAX_KEY = 60
"""Characters of a key there isn't that its refusal names."""

_WHY = {"type": "string", "minLength": 1, "maxLength": MAX_WHY, "description": "Why it is needed, for a person."}
_HOST = {"type": "string", "maxLength": MAX_TEXT, "description": "One exact host name: no wildcard, address or port."}


def _texts(what: str) -> dict[str, Any]:
    return {
        "type": "array", "minItems": 1, "maxItems": MAX_LIST, "items": {"type": "string", "maxLength": MAX_TEXT},
        "description": what,
    }  # fmt: skip


def _tool(
    name: str, description: str, properties: dict[str, Any], *required: str, reads: bool = False
) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    hints = {"readOnlyHint": reads, "destructiveHint": False, "openWorldHint": False}
    return {"name": name, "description": description, "inputSchema": schema, "annotations": hints}


_LIST = _tool("list_routes", "List the hosts and paths that this bottle's egress lets out.", {}, reads=True)
_STATUS = _tool(
    "proposal_status",
    "Say where a proposal stands; waits a while for a decision.",
    {"proposal": {"type": "integer", "minimum": 1}},
    "proposal",
    reads=True,
)
_PROPOSALS = {
    "route": _tool(
        "propose_route",
        "Ask the operator to let requests to one host out, or to further paths of a host. Without path_allowlist: "
        "every path. A person decides; until then nothing changes.",
        {"host": _HOST, "path_allowlist": _texts("Absolute path prefixes."), "why": _WHY},
        "host",
        "why",
    ),
    "pipelock": _tool(
        "propose_pipelock_change",
        "Ask the operator to change how one host that has a route is inspected: whether its TLS passes unread by the "
        "second hop, and which private addresses its name may lead to. A person decides.",
        {
            "host": _HOST,
            "tls_passthrough": {"type": "boolean"},
            "ssrf_ip_allowlist": _texts("Addresses or networks, like 10.1.0.0/16."),
            "why": _WHY,
        },
        "host",
        "why",
    ),
    "capability": _tool(
        "propose_capability_change",
        "Ask the operator for one thing that needs the bottle rebuilt: a directory of the host's programs (read_only), "
        "or one environment variable (env). When it is approved this agent is stopped and resumed.",
        {
            "read_only": {"type": "string", "maxLength": MAX_TEXT, "description": "A directory of the host."},
            "env": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 128},
                    "value": {"type": "string", "maxLength": MAX_TEXT},
                },
                "required": ["name", "value"],
                "additionalProperties": False,
            },
            "why": _WHY,
        },
        "why",
    ),
}
_KIND_OF = {tool["name"]: kind for kind, tool in _PROPOSALS.items()}


class BadCall(Exception):
    """A call that doesn't fit its tool's schema; the text is for the agent."""


def listed(offered: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the tools there are: what can't be carried out here isn't offered."""
    return [_LIST, *(_PROPOSALS[kind] for kind in _PROPOSALS if kind in offered), _STATUS]


async def call(desk: Desk, offered: tuple[str, ...], name: str, arguments: Any) -> dict[str, Any]:
    """Carry out a call; raises KeyError for a tool there isn't, BadCall for arguments of another shape."""
    tool = next((each for each in listed(offered) if each["name"] == name), None)
    if tool is None:
        raise KeyError(name)
    checked = fitting(arguments if arguments is not None else {}, tool["inputSchema"], "arguments")
    if name == "list_routes":
        return {"routes": list(desk.routes)}
    if name == "proposal_status":
        return await desk.status(checked["proposal"])
    why = checked.pop("why")
    return await desk.propose(_KIND_OF[name], checked, why)


def fitting(value: Any, schema: dict[str, Any], where: str) -> Any:
    """Return the value when it fits the schema, of which only the words used above are known; raises BadCall."""
    kinds: dict[str, Callable[[Any], bool]] = {
        "object": lambda each: isinstance(each, dict),
        "array": lambda each: isinstance(each, list),
        "string": lambda each: isinstance(each, str),
        "boolean": lambda each: isinstance(each, bool),
        "integer": lambda each: isinstance(each, int) and not isinstance(each, bool),
    }
    if not kinds[schema["type"]](value):
        raise BadCall(f"{where} is no {schema['type']}")
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema["maxLength"]:
            raise BadCall(f"{where} is empty or over {schema['maxLength']} characters")
        if not value.isprintable():
            raise BadCall(f"{where} holds a character that can't be shown")
    elif isinstance(value, list):
        if not schema["minItems"] <= len(value) <= schema["maxItems"]:
            raise BadCall(f"{where} is empty or over {schema['maxItems']} long")
        for at, each in enumerate(value):
            fitting(each, schema["items"], f"{where}[{at}]")
    elif isinstance(value, dict):
        unknown = sorted(set(value) - set(schema["properties"]))
        if unknown:
            known = ", ".join(schema["properties"]) or "none"
            raise BadCall(f"{where} has the unknown key {unknown[0][:MAX_KEY]!a}; there are: {known}")
        missing = [name for name in schema["required"] if name not in value]
        if missing:
            raise BadCall(f"{where} lacks {', '.join(missing)}")
        for name, each in value.items():
            fitting(each, schema["properties"][name], f"{where}.{name}")
    elif isinstance(value, int) and "minimum" in schema and value < schema["minimum"]:
        raise BadCall(f"{where} is under {schema['minimum']}")
    return value
