"""Claude Code in a bottle (facts: its own documentation of settings, flags and environment variables)."""

from __future__ import annotations

import json
from typing import Any

from bottle.manifest.kinds import AgentProvider, PipelockRoute, Route
from bottle.providers.base import (
    PLACEHOLDER,
    GuestFile,
    GuestPlace,
    HostFacts,
    ProviderPlan,
    ProviderRoute,
    TokenSource,
)

API = "api.anthropic.com"
TOKEN_VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"


def provide(settings: AgentProvider, place: GuestPlace, facts: HostFacts) -> ProviderPlan:
    """Return what Claude Code needs; with auth_token the guest holds a placeholder and egress the token."""
    token = None if settings.auth_token is None else TokenSource("variable", settings.auth_token)
    env = {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    if token is not None:
        env[TOKEN_VARIABLE] = PLACEHOLDER
    first = ("claude", "--dangerously-skip-permissions", "--append-system-prompt-file", place.prompt)
    state: dict[str, Any] = {
        "hasCompletedOnboarding": True,
        "projects": {place.workdir: {"hasTrustDialogAccepted": True}},
    }
    if place.supervise is not None:
        state["mcpServers"] = {"bottle": {"type": "http", "url": place.supervise}}
    route = Route(host=API, pipelock=PipelockRoute(tls_passthrough=True))
    return ProviderPlan(
        name="claude",
        command=first,
        programs=("claude",),
        resume=(*first, "--continue"),
        image="bottle-claude",
        dockerfile=settings.dockerfile or "claude.Dockerfile",
        prompt_mode="append-file",
        directories=(f"{place.home}/.claude",),
        files=(GuestFile(f"{place.home}/.claude.json", json.dumps(state, indent=2) + "\n"),),
        verify=(("claude", "--version"),),
        env=env,
        hidden=frozenset([TOKEN_VARIABLE]) if token is not None else frozenset(),
        routes=(ProviderRoute(route, None if token is None else "Bearer", token),),
    )
