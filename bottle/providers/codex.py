"""Codex in a bottle (facts: its own documentation of config.toml, flags and CODEX_HOME)."""

from __future__ import annotations

import json

from bottle.errors import CredentialMissing
from bottle.manifest.kinds import AgentProvider, Route
from bottle.providers.base import GuestFile, GuestPlace, HostFacts, ProviderPlan, ProviderRoute, TokenSource
from bottle.providers.codex_auth import HINT, read_codex_auth

HOSTS = ("api.openai.com", "chatgpt.com")
TOOL_S = 660
"""Seconds that Codex lets a supervise tool take: longer than any of them waits."""


def provide(settings: AgentProvider, place: GuestPlace, facts: HostFacts) -> ProviderPlan:
    """Return what Codex needs; forwarded credentials leave a dummy auth.json in the guest."""
    home = f"{place.home}/.codex"
    config = f'[projects.{json.dumps(place.workdir)}]\ntrust_level = "trusted"\n'
    if place.supervise is not None:
        config += f"\n[mcp_servers.bottle]\nurl = {json.dumps(place.supervise)}\ntool_timeout_sec = {TOOL_S}\n"
    files = [GuestFile(f"{home}/config.toml", config)]
    verify: tuple[tuple[str, ...], ...] = ()
    token = None
    if settings.forward_host_credentials:
        if facts.codex_auth is None:
            raise CredentialMissing("there is no auth.json of codex to forward", hint=HINT)
        files.append(GuestFile(f"{home}/auth.json", read_codex_auth(facts.codex_auth, facts.now).dummy))
        token = TokenSource("codex", "access_token")
        verify = (("codex", "login", "status"),)
    start = ("codex", "--dangerously-bypass-approvals-and-sandbox")
    return ProviderPlan(
        name="codex",
        command=start,
        programs=("codex",),
        resume=(*start, "resume", "--last"),
        resume_of={"exec": (*start, "exec", "resume", "--last")},
        image="bottle-codex",
        dockerfile=settings.dockerfile or "codex.Dockerfile",
        prompt_mode="read-file",
        directories=(home,),
        files=tuple(files),
        # Codex reads AGENTS.md of its home first, or the override beside it: both are made anew, whatever one left
        # there. State of another login would win over the dummy's.
        before=(
            ("sh", "-c", f"rm -rf {home}/AGENTS.md {home}/AGENTS.override.md && ln -s {place.prompt} {home}/AGENTS.md"),
            ("sh", "-c", f"rm -f {home}/*.sqlite {home}/*.sqlite-shm {home}/*.sqlite-wal"),
        ),
        verify=verify,
        env={"CODEX_HOME": home, "CODEX_CA_CERTIFICATE": place.ca_bundle},
        routes=tuple(ProviderRoute(Route(host=host), None if token is None else "Bearer", token) for host in HOSTS),
    )
