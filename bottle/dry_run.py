"""`bottle start --dry-run`: the summary of a start and every step that it would take; nothing is started."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json

from bottle import credentials, hosting, skills, starting
from bottle.authority import NOBODY
from bottle.backends.base import all_steps
from bottle.backends.by_name import backend
from bottle.limits import held_here
from bottle.manifest.store import home_root
from bottle.plan import BottlePlan
from bottle.preflight import preflight, shown, summary
from bottle.workspace.keeping import looked_at
from opsexec.steps import redact


def dry_run(plan: BottlePlan, arguments: argparse.Namespace) -> int:
    """Show what a start would show and do; another host is asked what it has, and left as it is.

    What a start refuses is refused here, too: a skill that isn't there, a directory that is too much, a host without an
    environment.
    """
    isolation = backend(plan.backend)
    trust, resolved = starting.trusted(arguments.upstream_ca), starting.resolve_option(arguments.resolve)
    given = skills.found(plan.skills)
    host = hosting.asked(arguments)
    if host is None:
        arriving = []
        place = starting.place_of(plan.identity, starting.runtime_or_sample(plan), resolved, trust)
    else:
        host, place = asyncio.run(hosting.settle(host, plan, resolved, trust))
        arriving = [("code", step) for step in hosting.arrival(place)]
    bounds = held_here(plan.limits) if plan.backend == "bwrap" and host is None else None
    beside = [*skills.lines(given), *looked_at(plan, home_root().resolve())]
    if host is not None:
        beside.insert(0, f"{'host':<13} {shown(host.url)} ({shown(place.state)})")
    copied = tuple((each.source, skills.target(plan, each.name)) for each in given)
    whole = dataclasses.replace(plan, skill_copies=copied)
    steps = [*arriving, *all_steps(isolation, whole, place, credentials.masked(plan), NOBODY)]
    if arguments.json:
        lines = [*summary(plan, bounds), *(tuple(each.split(maxsplit=1)) for each in beside)]
        told = {"digest": plan.digest, "lines": lines}
        print(json.dumps({**told, "steps": [{"phase": phase, "step": redact(step)} for phase, step in steps]}))
        return 0
    for line in (*preflight(plan, bounds), *beside):
        print(line)
    print("steps")
    for phase, step in steps:
        print(f"  {phase:<15} {shown(json.dumps(redact(step), ensure_ascii=False))}")
    return 0
