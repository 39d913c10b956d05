"""Manifest + launch intent -> BottlePlan: data only, no I/O. What is shown before a launch is what is launched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bottle.backends.names import BACKENDS as BACKENDS
from bottle.backends.names import Backend as Backend
from bottle.egress import EffectiveEgress, effective_egress
from bottle.errors import BadManifest
from bottle.host_keys import MANIFEST, HostKeys, declared
from bottle.images import AgentImage
from bottle.limits import Limits
from bottle.manifest.extends import merge_user
from bottle.manifest.kinds import AgentProvider, EnvValue, GitUser, Repository, Source
from bottle.manifest.store import Loaded
from bottle.providers.base import GuestPlace, HostFacts, ProviderPlan
from bottle.providers.registry import provider

GUEST_USER = "agent"
GUEST_HOME = "/home/agent"
RUN = "/run/bottle"
PROMPT = f"{RUN}/prompt.md"
CA_FILE = f"{RUN}/ca.pem"
TOOLS = "/opt/bottle/tools"
GUEST_PATH = f"{TOOLS}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
EGRESS_PORT = 8877
GIT_PORT = 8878
GIT_NATIVE_PORT = 9418
"""Where git's own protocol is spoken, on a network of the bottle's own: git:// names no port, and means this one."""

SUPERVISE_PORT = 8879
BUNDLE = "bundle"
"""The bundle's name where it is a machine of its own, on a network with the agent's."""


@dataclass(frozen=True)
class Intent:
    """What a launch asks beyond the manifest. `identity` names the bottle; `arguments` follow the agent's own words."""

    identity: str
    backend: Backend = "bwrap"
    copy_cwd: str | None = None
    arguments: tuple[str, ...] = ()
    resume: bool = False
    facts: HostFacts = field(default_factory=HostFacts)


@dataclass(frozen=True)
class Workspace:
    """Where the agent works. `source`: the host directory copied there, None = nothing is."""

    path: str
    workdir: str
    source: str | None
    owner: str = GUEST_USER
    mode: str = "0755"


@dataclass(frozen=True)
class BottlePlan:
    """One bottle, everything decided. Values of secrets aren't in it, only where the launcher finds them.

    `image`: what the agent's image is built of, None where the backend needs none. `again`: the agent's words when it
    goes on. `host_trees`: directories of the host that it reads, each at its own path. `supervise_wait_s`: how long one
    of its questions waits for a decision. `skill_copies`: directories of the launcher and where the guest has them.
    `host_keys`: what each repository's upstream is held to; one that isn't there has no key, and can't be started.
    """

    identity: str
    agent: str
    bottle: str
    backend: Backend
    provider: ProviderPlan
    prompt: str
    command: tuple[str, ...]
    env: Mapping[str, EnvValue]
    egress: EffectiveEgress
    git_user: GitUser | None
    git_user_claimed: bool
    repositories: Mapping[str, Repository]
    skills: tuple[str, ...]
    workspace: Workspace
    supervise: bool
    sources: tuple[Source, ...]
    warnings: tuple[str, ...] = field(default=())
    image: AgentImage | None = None
    limits: Limits = field(default=Limits())
    again: tuple[str, ...] = ()
    host_trees: tuple[str, ...] = ()
    supervise_wait_s: float = 30.0
    skill_copies: tuple[tuple[str, str], ...] = ()
    host_keys: Mapping[str, HostKeys] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over the manifests this was made from and what was asked: shown before, recorded after."""
        asked = [
            self.agent,
            self.backend,
            *self.command,
            *(source.where + source.digest for source in self.sources),
            json.dumps(self.egress.table(), sort_keys=True),
            *([self.image.digest] if self.image else []),
            *self.limits.words,
            *self.host_trees,
            *(key for each in self.host_keys.values() if each.where != MANIFEST for key in each.keys),
        ]
        return hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass")).hexdigest()

    def door(self, port: int) -> str:
        """Return where the agent finds one of the bundle's doors, as `host:port`."""
        return door(self.backend, port)

    def guest_env(self) -> dict[str, str]:
        """Return the variables of the guest that are no secret: the provider's, the literals, proxy and trust store."""
        env = {
            "HOME": GUEST_HOME,
            "USER": GUEST_USER,
            "LOGNAME": GUEST_USER,
            "PATH": ":".join([GUEST_PATH, *(f"{tree}/bin" for tree in self.host_trees)]),
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "NODE_EXTRA_CA_CERTS": CA_FILE,
            "SSL_CERT_FILE": CA_BUNDLE,
            "REQUESTS_CA_BUNDLE": CA_BUNDLE,
            "BOTTLE_IDENTITY": self.identity,
        }
        if self.egress.routes or self.supervise:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
                env[name] = f"http://{self.door(EGRESS_PORT)}"
        if self.supervise:
            env["BOTTLE_SUPERVISE"] = f"http://{self.door(SUPERVISE_PORT)}/mcp"
            for name in ("NO_PROXY", "no_proxy"):
                env[name] = f"localhost,{self.door(SUPERVISE_PORT).partition(':')[0]}"
        env.update(self.provider.env)
        env.update({name: value.text for name, value in self.env.items() if not value.secret})
        return env


def door(backend: Backend, port: int) -> str:
    """Return where an agent finds one of its bundle's doors, as `host:port`."""
    return f"{'127.0.0.1' if backend == 'bwrap' else BUNDLE}:{port}"


def make_plan(loaded: Loaded, intent: Intent) -> BottlePlan:
    """Return the plan of a launch; raises BadManifest where the manifest and the intent don't meet."""
    bottle = loaded.bottle
    settings = bottle.agent_provider or AgentProvider(template="command")
    workspace = _workspace(intent)
    supervise = f"http://{door(intent.backend, SUPERVISE_PORT)}/mcp" if bottle.supervise else None
    place = GuestPlace(GUEST_HOME, workspace.workdir, PROMPT, CA_BUNDLE, supervise)
    provided = provider(settings.template)(settings, place, intent.facts)
    command = _command(provided, intent)
    if not command:
        hint = "give one: bottle start AGENT -- PROGRAM ARGUMENTS"
        raise BadManifest(f"agent {loaded.name!r} has no command: its provider is `command`", hint=hint)
    egress = effective_egress(provided.routes, bottle.egress.routes if bottle.egress else ())
    claimed = loaded.agent.git_gate.user if loaded.agent.git_gate else None
    gate = bottle.git_gate
    repositories = dict(gate.repos or {}) if gate else {}
    warnings = list(egress.warnings)
    if not loaded.source.trusted:
        warnings.append(f"the agent comes from {loaded.source.where}, not from your own manifests")
    plan = BottlePlan(
        identity=intent.identity,
        agent=loaded.name,
        bottle=loaded.agent.bottle,
        backend=intent.backend,
        provider=provided,
        prompt=loaded.prompt,
        command=command,
        again=_command(provided, replace(intent, resume=True)),
        env=dict(bottle.env),
        egress=egress,
        git_user=merge_user(gate.user if gate else None, claimed),
        git_user_claimed=claimed is not None,
        repositories=repositories,
        host_keys={name: keys for name, each in repositories.items() if (keys := declared(each)) is not None},
        skills=loaded.agent.skills,
        workspace=workspace,
        supervise=bool(bottle.supervise),
        sources=loaded.sources,
    )
    return replace(plan, warnings=(*_replaced(plan), *warnings))


def _replaced(plan: BottlePlan) -> list[str]:
    """Return a warning for each variable of the manifest's in whose place there would be another."""
    given = replace(plan, env={}).guest_env()
    whose = {name: "provider" if name in plan.provider.env else "bottle" for name in given}
    return [f"env {name} of the manifest replaces the {whose[name]}'s" for name in sorted({*plan.env} & {*whose})]


def _command(provided: ProviderPlan, intent: Intent) -> tuple[str, ...]:
    """Return the agent's words: those of a first start or of going on, then what was asked."""
    if not intent.resume:
        return (*provided.command, *intent.arguments)
    first, *rest = intent.arguments or ("",)
    if first in provided.resume_of:
        return (*provided.resume_of[first], *rest)
    return (*(provided.resume or provided.command), *intent.arguments)


def _workspace(intent: Intent) -> Workspace:
    path = f"{GUEST_HOME}/workspace"
    return Workspace(path=path, workdir=path if intent.copy_cwd else GUEST_HOME, source=intent.copy_cwd)
