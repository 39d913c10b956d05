"""One proposed change as data: checked, in one spelling, hashed. It names one host, one directory or one variable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bottle.manifest.names import OWN_VARIABLES, VARIABLE, path_prefix
from bottle.plan import TOOLS
from opsexec.errors import UsageError

Kind = Literal["route", "pipelock", "capability"]
KINDS: tuple[Kind, ...] = ("route", "pipelock", "capability")
MAX_PATHS = 8
MAX_BYTES = 16 << 10
TOOL_ROOTS = ("/opt", "/nix/store", "/srv/tools")
"""Below these, one level down at least, a directory of the host may be asked for: nothing else of the host's ever."""

FIXED_VARIABLES = OWN_VARIABLES | {"HOME", "USER", "LOGNAME"}


class BadProposal(UsageError):
    """A proposed change that can't be taken as it stands; the text may be shown to the agent."""

    code = "bad_proposal"


@dataclass(frozen=True)
class Candidate:
    """`subject`: the host, directory or variable it is about. `body`: the whole change, in its one spelling."""

    kind: Kind
    subject: str
    body: Mapping[str, Any]

    @property
    def canonical(self) -> str:
        """The change as text that is the same for the same change."""
        return json.dumps({"kind": self.kind, **self.body}, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of that, in hex."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def read_candidate(kind: object, body: object) -> Candidate:
    """Return the change that was asked for; raises BadProposal, which says nothing of the bottle's own policy."""
    if kind not in KINDS or not isinstance(body, Mapping):
        raise BadProposal("no such kind of change")
    if len(json.dumps(dict(body), default=str)) > MAX_BYTES:
        raise BadProposal("the change is too large for a person to read")
    if kind == "route":
        return _route(body)
    return _pipelock(body) if kind == "pipelock" else _capability(body)


def _only(body: Mapping[str, Any], *names: str) -> None:
    if unknown := sorted(set(body) - set(names)):
        raise BadProposal(f"a change of this kind has no {unknown[0][:60]!r}", hint="its keys: " + ", ".join(names))


def _route(body: Mapping[str, Any]) -> Candidate:
    _only(body, "host", "path_allowlist")
    paths = body.get("path_allowlist")
    if paths is not None and (not isinstance(paths, (list, tuple)) or not 0 < len(paths) <= MAX_PATHS):
        raise BadProposal(f"path_allowlist is no list of 1 to {MAX_PATHS} prefixes: one thing at a time")
    route = _validated("Route", {"host": body.get("host"), "path_allowlist": paths})
    found = None if route.path_allowlist is None else sorted(set(route.path_allowlist))
    return Candidate("route", route.host, {"host": route.host, "path_allowlist": found})


def _pipelock(body: Mapping[str, Any]) -> Candidate:
    _only(body, "host", "tls_passthrough", "ssrf_ip_allowlist")
    host = _validated("Route", {"host": body.get("host")}).host
    given = {key: body[key] for key in ("tls_passthrough", "ssrf_ip_allowlist") if body.get(key) is not None}
    if len(given) != 1:
        raise BadProposal("one of tls_passthrough and ssrf_ip_allowlist: one thing at a time")
    settings = _validated("PipelockRoute", given)
    if "tls_passthrough" in given:
        return Candidate("pipelock", host, {"host": host, "tls_passthrough": settings.tls_passthrough})
    networks = sorted(set(settings.ssrf_ip_allowlist))
    if not 0 < len(networks) <= MAX_PATHS:
        raise BadProposal(f"ssrf_ip_allowlist is no list of 1 to {MAX_PATHS} networks")
    return Candidate("pipelock", host, {"host": host, "ssrf_ip_allowlist": networks})


def _capability(body: Mapping[str, Any]) -> Candidate:
    _only(body, "read_only", "env")
    given = [key for key in ("read_only", "env") if body.get(key) is not None]
    if len(given) != 1:
        raise BadProposal("one of read_only and env: one thing at a time")
    if given == ["read_only"]:
        path = _tree(body["read_only"])
        return Candidate("capability", path, {"read_only": path})
    env = body["env"]
    if not isinstance(env, Mapping) or set(env) != {"name", "value"}:
        raise BadProposal("env is no name and value")
    name, value = env["name"], env["value"]
    if not isinstance(name, str) or not VARIABLE.match(name) or name in FIXED_VARIABLES:
        raise BadProposal("env.name is no variable that may be set")
    if not isinstance(value, str) or not value.isprintable() or value.startswith("?") or "${" in value:
        raise BadProposal("env.value is no plain text: nothing is asked for or read from the launcher by a proposal")
    return Candidate("capability", name, {"env": {"name": name, "value": value}})


def _tree(path: object) -> str:
    if not isinstance(path, str) or not path.isprintable():
        raise BadProposal("read_only is no path")
    try:
        clean = path_prefix(path).rstrip("/")
    except ValueError as error:
        raise BadProposal(f"read_only {error}") from error
    if not any(clean.startswith(root + "/") for root in TOOL_ROOTS):
        raise BadProposal("read_only is not below " + ", ".join(TOOL_ROOTS))
    if f"{clean}/".startswith(f"{TOOLS}/") or f"{TOOLS}/".startswith(f"{clean}/"):
        raise BadProposal(f"read_only meets {TOOLS}, which is the bottle's own")
    return clean


def _validated(kind: Literal["Route", "PipelockRoute"], data: dict[str, Any]) -> Any:
    # Here and not above: it takes longer to import than all else that a launcher needs.
    from pydantic import ValidationError

    from bottle.manifest import model

    chosen: type[model.Closed] = model.Route if kind == "Route" else model.PipelockRoute
    try:
        return chosen.model_validate({name: value for name, value in data.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "host"
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"].lower()
        raise BadProposal(f"{where}: {reason}") from None
