"""JSON Schemas of the files that people write, made from the same tables that the loaders read by."""

from __future__ import annotations

from typing import Any

from opsexec.errors import UsageError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAMES = ("runbook", "inventory", "agent-config")
AGENT_CONFIG = "agent_config_schema.json"
"""What `ops-agent schema` prints, kept here because this library doesn't know the agent; a test holds them together."""

Schema = dict[str, Any]


def schema(name: str) -> Schema:
    """Return the JSON Schema of a kind of file; raises UsageError for an unknown kind."""
    if name == "runbook":
        return runbook_schema()
    if name == "inventory":
        return inventory_schema()
    if name == "agent-config":
        return agent_config_schema()
    raise UsageError(f"there is no schema {name[:40]!r}", hint="one of: " + ", ".join(NAMES))


def agent_config_schema() -> Schema:
    """Return the schema of ops-agent's configuration, as the JSON that its TOML stands for."""
    import json
    from pathlib import Path

    found: Schema = json.loads((Path(__file__).parent / AGENT_CONFIG).read_text("utf-8"))
    return found


def _text(description: str | None = None, **more: Any) -> Schema:
    """Text; an unquoted number or bool is taken as it is written."""
    kept = {"type": ["string", "number", "boolean"], **more}
    return kept if description is None else {**kept, "description": description}


def _list(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


def _map(properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    if required:
        made["required"] = list(required)
    return made


_NAME = "^[A-Za-z_][A-Za-z0-9_-]*$"
_WHOLE_REFERENCE = {"type": "string", "pattern": "^\\$\\{[^}]+\\}$"}
_SHARE: Schema = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^([0-9]{1,3}%|[0-9]+)$"}]}
_SECRET: list[Schema] = [
    _map({"from_env": {"type": "string"}}, ("from_env",), description="a secret from the caller's environment"),
    _map({"prompt": {"type": "string"}}, ("prompt",), description="a secret asked for at the terminal"),
]
_VARIABLES: Schema = {
    "type": "object",
    "propertyNames": {"pattern": _NAME},
    "additionalProperties": {
        "anyOf": [
            {"type": ["string", "number", "boolean", "array"]},
            *_SECRET,
            {"type": "object", "not": {"anyOf": [{"required": ["from_env"]}, {"required": ["prompt"]}]}},
        ]
    },
}


def runbook_schema() -> Schema:
    """Return the schema of a runbook."""
    from opsexec.runbook.loader import TIER_KEYS, TOP_KEYS

    step = {"$ref": "#/$defs/step"}
    tier = _map(
        {
            "hosts": _text("a pattern within the runbook's hosts, like &prod"),
            "name": _text("what ${tier} says; else the pattern without its &"),
            "serial": {"anyOf": [_SHARE, _list(_SHARE, minItems=1)], "description": "sizes of the batches"},
            "approve": {"type": "boolean", "description": "ask a person before this tier starts"},
            "max_failures": {**_SHARE, "description": "how many of its hosts may fail before the rest is held back"},
        },
        ("hosts",),
    )
    properties: dict[str, Schema] = {
        "name": _text("what this runbook is called"),
        "hosts": _text("a pattern: name, group, glob, all, !not, &and, joined by commas; or an executor URL"),
        "capabilities": _list({"type": "string"}, description="all that this runbook may ask of any host"),
        "vars": {**_VARIABLES, "description": "variables; a host's own and --var win over them"},
        "max_failures": {**_SHARE, "description": "the default of every tier"},
        "tiers": _list(tier, description="gates that the hosts pass in order"),
        "steps": _list(step, minItems=1, description="what is done on each host, in order"),
        "always": _list(step, description="what is done at the end, also after a failure or Ctrl-C"),
    }
    assert set(properties) == set(TOP_KEYS)
    assert set(tier["properties"]) == set(TIER_KEYS)
    return {
        "$schema": DIALECT,
        "title": "opsexec runbook",
        **_map(properties, ("name", "hosts", "steps")),
        "$defs": {"step": _step_schema()},
    }


def _step_schema() -> Schema:
    from opsexec.runbook.fields import KEYS, PROCESS
    from opsexec.runbook.loader_steps import ACTION_KEYS, COMMON_KEYS

    properties: dict[str, Schema] = {
        "name": _text("what the report calls it; plain text"),
        "when": _text("a condition, like ${tier} == prod; `changed` = only if an earlier step changed something"),
        "retry": _map(
            {"times": {"type": "integer", "minimum": 1}, "delay": {"type": "number", "minimum": 0}},
            ("times",),
            description="up to `times` more tries, `delay` seconds apart",
        ),
        "timeout": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _WHOLE_REFERENCE], "description": "seconds"},
        "register": _text("the variable that takes the result"),
        "tags": {"anyOf": [_text(), _list(_text())], "description": "names that --tags chooses by"},
        "run_as": _text("the user it runs as, instead of the login"),
        "changed_when": _text("a condition over ${result} that decides whether it changed something"),
        "allow_failure": {"type": "boolean", "description": "a failure is reported, and the host goes on"},
        "env": {"type": "object", "additionalProperties": _text(), "description": "environment; may hold secrets"},
        "cwd": _text("the directory it runs in"),
        "stdin": _text("what it reads; may be a secret"),
        "creates": _text("skip the step when this path exists"),
        "assert": {
            "anyOf": [_text(), _map({"that": _text("a condition"), "message": _text()}, ("that",))],
            "description": "Fail unless a condition holds.",
        },
    }
    assert set(properties) == {*COMMON_KEYS, *PROCESS, "assert"}
    for key in KEYS:
        properties[key] = _action_schema(key)
    return _map(properties, oneOf=[{"required": [key]} for key in ACTION_KEYS])


def _action_schema(key: str) -> Schema:
    from opsexec.runbook.fields import KEYS, OWN_FIELDS, REQUIRED, SERVICE_ACTIONS

    made = KEYS[key]
    fields = {name: _field_schema(kind) for name, kind in OWN_FIELDS[made.step].items()}
    if key == "service":
        fields["action"] = {"enum": list(SERVICE_ACTIONS)}
    if key == "shell":
        fields["interpreter"] = {"enum": ["/bin/sh", "/bin/bash"]}
    if key == "container.list":
        fields["kind"] = {"enum": ["containers", "networks", "images"]}
    if key == "exec":
        return {**_list(_text(), minItems=1), "description": made.sentence}
    whole = _map(fields, REQUIRED[made.step])
    if made.shorthand is None:
        return {**whole, "description": made.sentence}
    short = _field_schema(OWN_FIELDS[made.step][made.shorthand])
    kinds = [short, _text(), whole] if short["type"] == "array" else [short, whole]
    return {"anyOf": kinds, "description": made.sentence}


def _field_schema(kind: str) -> Schema:
    if kind == "words":
        return _list(_text())
    if kind in ("environment", "texts"):
        return {"type": "object", "additionalProperties": _text()}
    if kind == "ints":
        whole = {"anyOf": [{"type": "integer"}, _WHOLE_REFERENCE]}
        return {"type": "object", "additionalProperties": whole}
    if kind == "networks":
        attached = _map({"network": _text(), "ipv4": _text(), "aliases": _list(_text())}, ("network",))
        return _list({"anyOf": [_text(), attached]})
    if kind == "files":
        given = _map({"content": _text("may be a secret"), "mode": _text("in octal; else 0644")}, ("content",))
        return {"type": "object", "additionalProperties": {"anyOf": [_text(), given]}}
    typed = {"bool": "boolean", "int": "integer", "number": "number"}.get(kind)
    return _text() if typed is None else {"anyOf": [{"type": typed}, _WHOLE_REFERENCE]}


def inventory_schema() -> Schema:
    """Return the schema of an inventory, as the JSON that its TOML stands for."""
    from opsexec.inventory import HOST_KEYS, SCHEMES

    words = _list({"type": "string"})
    host = _map(
        {
            "url": {
                "type": "string",
                "pattern": "^(" + "|".join(scheme.replace("+", "\\+") for scheme in SCHEMES) + "):",
                "description": "an executor URL, like ssh://user@host:22 or local:",
            },
            "groups": {**words, "description": "the groups it is in"},
            "vars": {**_VARIABLES, "description": "its variables; `tier` also works as a group"},
            "capabilities": {**words, "description": "what may be asked of it; absent = everything"},
            "run_as": {**words, "description": "the users that steps may become; * = any"},
            "identity_files": {**words, "description": "private keys to log in with"},
            "known_hosts": {"type": "string", "description": "the known_hosts file"},
            "host_keys": {"enum": ["strict", "accept-new"], "description": "what to do with an unknown host key"},
            "jump": {"type": "string", "description": "the host to jump through"},
            "config_files": {**words, "description": "ssh config files"},
        }
    )
    assert set(host["properties"]) == set(HOST_KEYS)
    tailnet = {"anyOf": [{"type": "boolean"}, _map({"tags": words})]}
    sources = _map({"ssh_config": {"type": ["boolean", "string"]}, "tailnet": tailnet})
    return {
        "$schema": DIALECT,
        "title": "opsexec inventory",
        **_map({"hosts": {"type": "object", "additionalProperties": host}, "sources": sources}),
    }
