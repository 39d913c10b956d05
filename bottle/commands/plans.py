"""`bottle info`, `capabilities` and `policy`: what an agent's bottle would be, from its manifest alone."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from urllib.parse import urlsplit

from bottle.commands.told import print_json


def info(arguments: argparse.Namespace) -> int:
    """Show the summary that a start would show."""
    from bottle.preflight import preflight, summary
    from bottle.starting import sample_plan

    plan, _ = sample_plan(arguments.agent, arguments.backend)
    if not plan.provider.command:
        plan = dataclasses.replace(plan, command=("what", "follows", "--"))
    if arguments.json:
        print_json({"agent": plan.agent, "digest": plan.digest, "routes": plan.egress.table(), "lines": summary(plan)})
        return 0
    for line in preflight(plan):
        print(line)
    return 0


def capabilities(arguments: argparse.Namespace) -> int:
    """Show the least that a host must grant."""
    from bottle import credentials, hosting, launch, skills
    from bottle.authority import NOBODY
    from bottle.starting import sample_plan

    plan, place = sample_plan(arguments.agent, arguments.backend)
    plan = dataclasses.replace(plan, skill_copies=tuple(("/", skills.target(plan, name)) for name in plan.skills))
    if arguments.cwd:
        plan = dataclasses.replace(plan, workspace=dataclasses.replace(plan.workspace, source="/"))
    host = hosting.asked(arguments)
    if host is not None:
        host, place = asyncio.run(hosting.settle(host, plan, {}, "", foresee=True))
    found = launch.capabilities(plan, place, credentials.masked(plan), NOBODY)
    found += [] if host is None else hosting.needs(place)
    # A grant is for every bottle of the agent, not for one.
    found = sorted({each.replace(plan.identity, f"{plan.agent}-*") for each in found})
    if arguments.json:
        print_json({"agent": plan.agent, "capabilities": found})
        return 0
    print("\n".join(found))
    return 0


def policy(arguments: argparse.Namespace) -> int:
    """Say whether a request would be let out; returns 1 when not."""
    from bottle.sidecars.egress.decide import Seen, decide_request
    from bottle.sidecars.egress.policy import read_table
    from bottle.starting import sample_plan
    from opsexec.errors import UsageError

    plan, _ = sample_plan(arguments.agent, arguments.backend)
    hint = "like https://api.example.com/v1/models"
    try:
        parts = urlsplit(arguments.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UsageError(f"{arguments.url!r} is not a URL ({error})", hint=hint) from error
    if not parts.scheme or not parts.netloc:
        raise UsageError(f"{arguments.url!r} is not a URL with a scheme and a host", hint=hint)
    if arguments.method != arguments.method.upper():
        raise UsageError(f"{arguments.method!r} is no method as agents send it", hint=arguments.method.upper())
    host = parts.netloc.rpartition(":")[0] if parts.netloc.endswith(f":{port}") else parts.netloc
    target = arguments.url.partition("://")[2].removeprefix(parts.netloc).partition("#")[0] or "/"
    verdict = decide_request(
        read_table(plan.egress.table()),
        Seen(
            tunnel=(host, port) if parts.scheme == "https" else None,
            tls=True,
            sni=host,
            scheme=parts.scheme,
            host=host,
            port=port,
            authority="",
            method=arguments.method,
            target=target,
            headers=((b"host", host.encode("utf-8", "replace")),),
        ),
    )
    injected = verdict.route.slot if verdict.route is not None else None
    if arguments.json:
        print_json({"allow": verdict.allow, "reason": verdict.reason, "injects": injected})
    else:
        print(f"{'allowed' if verdict.allow else 'refused'}: {verdict.reason}")
    return 0 if verdict.allow else 1
