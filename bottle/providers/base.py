"""What a provider says: the nouns only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bottle.manifest.kinds import AgentProvider, Route

PLACEHOLDER = "egress-placeholder"
"""What stands in the guest where a real token would: egress puts the real one on the wire."""

PromptMode = Literal["append-file", "read-file", "environment"]


@dataclass(frozen=True)
class GuestFile:
    """One file in the guest, owned by the guest's user."""

    path: str
    content: str
    mode: str = "0600"


@dataclass(frozen=True)
class TokenSource:
    """Where the launcher finds a token: a variable of its own, or a file of the host's agent."""

    kind: Literal["variable", "codex"]
    name: str


@dataclass(frozen=True)
class ProviderRoute:
    """A host that belongs to the provider, and the credential injected there."""

    route: Route
    scheme: Literal["Bearer", "token"] | None = None
    token: TokenSource | None = None


@dataclass(frozen=True)
class GuestPlace:
    """Where things stand in the guest, as the plan decided. `supervise`: the MCP server's URL, where there is one."""

    home: str
    workdir: str
    prompt: str
    ca_bundle: str
    supervise: str | None = None


@dataclass(frozen=True)
class HostFacts:
    """What the launcher read for providers: text of the codex auth file, None where it wasn't asked for; the time."""

    codex_auth: str | None = None
    now: float = 0.0


@dataclass(frozen=True)
class ProviderPlan:
    """Everything a backend needs to set up and start one agent.

    `programs`: what must be found in the guest. `resume`: words that replace those of a first start;
    `resume_of`: other ones, by the first argument, whose place they take. `before`: argvs run before the first check.
    `verify`: argvs that must succeed before the agent starts. `hidden`: names of placeholders, left out of the
    preflight.
    """

    name: str
    command: tuple[str, ...]
    programs: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    resume_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image: str = ""
    dockerfile: str = ""
    prompt_mode: PromptMode = "read-file"
    directories: tuple[str, ...] = ()
    files: tuple[GuestFile, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    verify: tuple[tuple[str, ...], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    routes: tuple[ProviderRoute, ...] = ()


Provider = Callable[[AgentProvider, GuestPlace, HostFacts], ProviderPlan]
