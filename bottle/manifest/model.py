"""What a manifest may say: pydantic models, closed to every other key. Files and objects both end here.

They are for reading alone: what passed them goes on as the plain values of `kinds`, of the same names, so that a bottle
whose manifests were read before starts without any of this.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from bottle.manifest import kinds
from bottle.manifest.kinds import EnvValue
from bottle.manifest.names import (
    BRANCH,
    OWN_VARIABLES,
    REPOSITORY,
    SKILL,
    TEMPLATE,
    VARIABLE,
    Upstream,
    host_name,
    path_prefix,
)

_REFERENCE = re.compile(r"\$\{([^}]*)\}\Z")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*\Z")


class Closed(BaseModel):
    """Base of every model: unknown keys are errors, nothing is coerced, nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)


def _env_value(value: Any) -> EnvValue:
    if isinstance(value, EnvValue):
        return value
    if not isinstance(value, str):
        raise ValueError("is not text; quote it")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    if value.startswith("?"):
        return EnvValue(kind="prompt", text=value[1:].strip())
    reference = _REFERENCE.match(value)
    if reference:
        return EnvValue(kind="host", text=_variable(reference[1]))
    if "${" in value:
        raise ValueError("mixes text with ${...}; a reference stands alone")
    return EnvValue(kind="literal", text=value)


def _variable(name: str) -> str:
    if not VARIABLE.match(name):
        raise ValueError(f"{name[:60]!r} is not a variable's name")
    return name


def _settable(name: str) -> str:
    if name in OWN_VARIABLES:
        raise Advised("is set by the bottle itself", "give the variable another name")
    return _variable(name)


def _reference(name: str) -> str:
    # Somebody may have put the token itself here: what stands there is repeated nowhere.
    if not VARIABLE.match(name):
        raise ValueError("is not a variable's name: it takes the NAME of the launcher's variable, never its value")
    return name


class Within(ValueError):
    """What is wrong about a part of a value. `path`: where that part is, below it."""

    def __init__(self, text: str, *path: str | int) -> None:
        super().__init__(text)
        self.path = path


class Advised(ValueError):
    """What is wrong, and what to do about it."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(f"{text[:60]!r} is not {what}")
        return text

    return AfterValidator(check)


def _line(text: str) -> str:
    if not text.strip() or not _PRINTABLE.match(text):
        raise ValueError("is empty or holds a control character")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=True))
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is not an address or a network in CIDR form") from error


def _reserved(value: Any) -> None:
    raise ValueError("is reserved: leave it out")


Variable = Annotated[str, AfterValidator(_settable)]
Reference = Annotated[str, AfterValidator(_reference)]
Line = Annotated[str, AfterValidator(_line)]


class Auth(Closed):
    """Which credential egress injects: the scheme, and the NAME of the launcher's variable that holds the token."""

    scheme: Literal["Bearer", "token"]
    token_ref: Reference


class PipelockRoute(Closed):
    """How the second hop treats a route; `ssrf_ip_allowlist`: private addresses its name may resolve to."""

    tls_passthrough: bool = False
    ssrf_ip_allowlist: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(default=(), strict=False)


Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Route(Closed):
    """One host the agent may reach. No path_allowlist: every path; no methods: each that is forwarded at all.

    `query_allowlist`: the names that a query's parameters may have, none when it is empty.
    """

    host: Annotated[str, AfterValidator(host_name)]
    path_allowlist: tuple[Annotated[str, AfterValidator(path_prefix)], ...] | None = Field(default=None, strict=False)
    methods: tuple[Method, ...] | None = Field(default=None, strict=False)
    query_allowlist: tuple[Line, ...] | None = Field(default=None, strict=False)
    auth: Auth | None = None
    pipelock: PipelockRoute = PipelockRoute()
    role: Annotated[None, PlainValidator(_reserved)] = None

    @model_validator(mode="after")
    def _no_empty_list(self) -> Route:
        if self.path_allowlist == ():
            raise ValueError("path_allowlist is empty, which would admit nothing; leave it out, or name prefixes")
        if self.methods == ():
            raise ValueError("methods is empty, which would admit nothing; leave it out, or name some")
        return self


class Egress(Closed):
    """The hosts of a bottle."""

    routes: tuple[Route, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _unique_hosts(self) -> Egress:
        seen: set[str] = set()
        for at, route in enumerate(self.routes):
            if route.host in seen:
                raise Within(f"{route.host!r} stands twice (case doesn't count)", "routes", at, "host")
            seen.add(route.host)
        return self


class AgentProvider(Closed):
    """Which coding agent runs in the bottle, and what it is given."""

    template: Annotated[str, _matching(TEMPLATE, "a provider's name")]
    dockerfile: Line | None = None
    auth_token: Reference | None = None
    forward_host_credentials: bool = False

    @model_validator(mode="after")
    def _only_where_known(self) -> AgentProvider:
        if self.auth_token is not None and self.template != "claude":
            raise ValueError(f"auth_token is for the claude template only, not {self.template}")
        if self.forward_host_credentials and self.template != "codex":
            raise ValueError(f"forward_host_credentials is for the codex template only, not {self.template}")
        return self


class GatePolicy(Closed):
    """What may be pushed to a repository where that differs from the gate's default (docs/git-gate.md), which None is.

    `protected`: branches that aren't pushed to, HEAD being the upstream's own; sizes in bytes.
    """

    protected: tuple[Annotated[str, _matching(BRANCH, "a branch's name")], ...] | None = Field(
        default=None, strict=False
    )
    protected_paths: bool | None = None
    deletes: bool | None = None
    forced: bool | None = None
    lfs: bool | None = None
    signatures: bool | None = None
    max_objects: Annotated[int, Field(gt=0, le=5_000_000)] | None = None
    max_object_bytes: Annotated[int, Field(gt=0, le=2 << 30)] | None = None
    max_bytes: Annotated[int, Field(gt=0, le=8 << 30)] | None = None


class Repository(Closed):
    """One git upstream behind the gate. `identity`: the key file on the launcher; `host_key`: its known_hosts line.

    Without one, the launcher's own known hosts tell the upstream from others.
    """

    url: str
    identity: Line
    host_key: Line | None = None
    policy: GatePolicy = GatePolicy()

    @model_validator(mode="after")
    def _url_is_ssh(self) -> Repository:
        try:
            Upstream(self.url)
        except ValueError as error:
            raise ValueError(f"url {self.url[:100]!r} {error}") from error
        return self


class GitUser(Closed):
    """The identity commits carry."""

    name: Line | None = None
    email: Line | None = None

    @model_validator(mode="after")
    def _at_least_one(self) -> GitUser:
        if self.name is None and self.email is None:
            raise ValueError("needs name or email")
        return self


class GitGate(Closed):
    """Git remotes of a bottle. repos None: not named, so a parent's stay; {}: cleared."""

    user: GitUser | None = None
    repos: dict[Annotated[str, _matching(REPOSITORY, "a repository's name")], Repository] | None = None

    @model_validator(mode="after")
    def _unique_upstreams(self) -> GitGate:
        seen: dict[tuple[str, str, int, str], str] = {}
        for name, repository in (self.repos or {}).items():
            if name in (".", ".."):
                raise Within(f"{name!r} is not a repository's name", "repos", name)
            upstream = Upstream(repository.url)
            parts = (upstream.user, upstream.host, upstream.port, upstream.path.rstrip("/").removesuffix(".git"))
            if seen.setdefault(parts, name) != name:
                raise Within(f"is the address of {seen[parts]}, too: the agent's git knows one", "repos", name, "url")
        return self


class Bottle(Closed):
    """What a bottle grants. `None` where a key is absent: `extends` tells that from an empty value."""

    env: dict[Variable, Annotated[EnvValue, PlainValidator(_env_value)]] = {}
    extends: str | None = None
    agent_provider: AgentProvider | None = None
    git_gate: GitGate | None = Field(default=None, alias="git-gate")
    egress: Egress | None = None
    supervise: bool | None = None


class AgentGitGate(Closed):
    """What an agent may say of git: the identity, claimed and not vouched for."""

    user: GitUser | None = None


class Agent(Closed):
    """Who runs in a bottle. The last five keys are a Claude Code subagent's; they are accepted and ignored."""

    bottle: str
    skills: tuple[Annotated[str, _matching(SKILL, "a skill's name")], ...] = Field(default=(), strict=False)
    git_gate: AgentGitGate | None = Field(default=None, alias="git-gate")
    name: Any = None
    description: Any = None
    model: Any = None
    color: Any = None
    memory: Any = None


RESERVED = ("role",)
"""Keys that are known, so that they are refused by their name, and are nobody's to use."""

KEYS: dict[type[BaseModel], tuple[str, ...]] = {
    kind: tuple(field.alias or name for name, field in kind.model_fields.items() if name not in RESERVED)
    for kind in (
        Auth, PipelockRoute, Route, Egress, AgentProvider, GatePolicy, Repository, GitUser, GitGate, Bottle,
        AgentGitGate, Agent,
    )
}  # fmt: skip
"""The keys each model takes, as a manifest spells them: what an unknown key is compared with."""


def plain(value: Any) -> Any:
    """Return a model, and each inside it, as the plain value of its name in `kinds`; anything else as it is."""
    if isinstance(value, BaseModel):
        kind = getattr(kinds, type(value).__name__)
        return kind(**{name: plain(getattr(value, name)) for name in kind.__struct_fields__})
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value
