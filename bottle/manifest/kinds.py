"""What a manifest said, once it was read: plain values. `model` says what may be said, and makes these."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bottle.manifest.names import Upstream


class EnvValue(msgspec.Struct, frozen=True):
    """A variable's value: its text, a question asked at launch, or the launcher's own variable."""

    kind: Literal["literal", "prompt", "host"]
    text: str

    @property
    def secret(self) -> bool:
        """True when the value is not written in the manifest, so it is to be seen nowhere."""
        return self.kind != "literal"


class Auth(msgspec.Struct, frozen=True):
    """Which credential egress injects: the scheme, and the NAME of the launcher's variable that holds the token."""

    scheme: Literal["Bearer", "token"]
    token_ref: str


class PipelockRoute(msgspec.Struct, frozen=True):
    """How the second hop treats a route; `ssrf_ip_allowlist`: private addresses its name may resolve to."""

    tls_passthrough: bool = False
    ssrf_ip_allowlist: tuple[str, ...] = ()


class Route(msgspec.Struct, frozen=True):
    """One host the agent may reach. No path_allowlist: every path; no methods: each that is forwarded at all.

    `query_allowlist`: the names that a query's parameters may have, none when it is empty.
    """

    host: str
    path_allowlist: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    query_allowlist: tuple[str, ...] | None = None
    auth: Auth | None = None
    pipelock: PipelockRoute = PipelockRoute()


class Egress(msgspec.Struct, frozen=True):
    """The hosts of a bottle."""

    routes: tuple[Route, ...] = ()


class AgentProvider(msgspec.Struct, frozen=True):
    """Which coding agent runs in the bottle, and what it is given."""

    template: str
    dockerfile: str | None = None
    auth_token: str | None = None
    forward_host_credentials: bool = False


class GatePolicy(msgspec.Struct, frozen=True):
    """What may be pushed to a repository where that differs from the gate's default (docs/git-gate.md), which None is.

    `protected`: branches that aren't pushed to, HEAD being the upstream's own; sizes in bytes.
    """

    protected: tuple[str, ...] | None = None
    protected_paths: bool | None = None
    deletes: bool | None = None
    forced: bool | None = None
    lfs: bool | None = None
    signatures: bool | None = None
    max_objects: int | None = None
    max_object_bytes: int | None = None
    max_bytes: int | None = None

    def rendered(self) -> dict[str, Any]:
        """Return what is said as JSON has it, and nothing of what isn't."""
        said = msgspec.structs.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in said.items()
            if value is not None
        }


class Repository(msgspec.Struct, frozen=True):
    """One git upstream behind the gate. `identity`: the key file on the launcher; `host_key`: its known_hosts line.

    Without one, the launcher's own known hosts tell the upstream from others.
    """

    url: str
    identity: str
    host_key: str | None = None
    policy: GatePolicy = GatePolicy()

    @property
    def upstream(self) -> Upstream:
        """The URL's parts."""
        return Upstream(self.url)


class GitUser(msgspec.Struct, frozen=True):
    """The identity commits carry."""

    name: str | None = None
    email: str | None = None


class GitGate(msgspec.Struct, frozen=True):
    """Git remotes of a bottle. repos None: not named, so a parent's stay; {}: cleared."""

    user: GitUser | None = None
    repos: dict[str, Repository] | None = None


class Bottle(msgspec.Struct, frozen=True):
    """What a bottle grants. `None` where a key is absent: `extends` tells that from an empty value."""

    env: dict[str, EnvValue] = {}
    extends: str | None = None
    agent_provider: AgentProvider | None = None
    git_gate: GitGate | None = None
    egress: Egress | None = None
    supervise: bool | None = None


class AgentGitGate(msgspec.Struct, frozen=True):
    """What an agent may say of git: the identity, claimed and not vouched for."""

    user: GitUser | None = None


class Agent(msgspec.Struct, frozen=True):
    """Who runs in a bottle."""

    bottle: str
    skills: tuple[str, ...] = ()
    git_gate: AgentGitGate | None = None


class Source(msgspec.Struct, frozen=True):
    """Where a manifest came from: the file (or the object's name) and the sha256 of what was read."""

    where: str
    digest: str
    trusted: bool
