"""The doctor: which checks a subject gets, what it declares, and the run itself."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from agent.services.check import FAMILIES, Check, checks
from agent.services.engine import Engine
from agent.services.finding import Finding
from agent.services.look import Look, Options, Service
from agent.services.probe import Probe, Unreadable
from agent.services.receipt import RECEIPTS, Receipt, read_receipt
from opsexec.errors import BadStep, UsageError
from opsexec.steps.base import service_name
from opsexec.steps.launchd_target import is_label

if TYPE_CHECKING:
    from agent.services.declaration import Declaration
    from opsexec.executor import Executor

LOCAL_RUNTIME = "local-runtime"
DECLARATIONS = "/etc/ops-agent/services"
"""Where a host's declarations stand; a user's stand in ~/.config/ops-agent/services."""

OF_A_SERVICE = tuple(family for family in FAMILIES if family not in ("persist", "agent"))
OF_A_HOST = ("host", "backend", "podman", "container", "auth", "persist", "agent")
ROOTS = ("backend.manager", "svc.state", "lint.unit-syntax", "lint.plist-syntax")
"""Who says why, when a service's state or definition can't be read (`Unreadable.root`)."""
SUFFIXES = (".service", ".socket", ".timer", ".path", ".mount", ".target", ".slice")


class Request(NamedTuple):
    """What a command line asks for. `only`: ids, families or globs.

    `user`: the login's own service manager; `run_as`: whose eyes to look with, None = the login's.
    """

    name: str
    only: tuple[str, ...] = ()
    user: bool = False
    declaration: Declaration | None = None
    options: Options = Options()
    run_as: str | None = None


class Examined(NamedTuple):
    """What was found. `checks`: those that were asked for, in order."""

    host: str
    findings: list[Finding]
    checks: list[Check]


def select(every: Sequence[Check], only: Sequence[str]) -> list[Check]:
    """Return the checks that `only` names; raises UsageError for a word that names none."""
    if not only:
        return [each for each in every if not each.opt_in]
    wanted = set()
    for word in only:
        found = [each.id for each in every if word in (each.id, each.family) or fnmatchcase(each.id, word)]
        if not found:
            near = difflib.get_close_matches(word, [each.id for each in every], n=1)
            hint = f"did you mean {near[0]}?" if near else "see `ops-agent doctor --list-checks`"
            raise UsageError(f"no check here is called {word[:60]!r}", hint=hint)
        wanted.update(found)
    return [each for each in every if each.id in wanted]


def with_causes(chosen: Sequence[Check], every: Sequence[Check]) -> list[Check]:
    """Return the chosen checks and all that they wait for, in the order of all checks."""
    by_id = {each.id: each for each in every}
    wanted: set[str] = set()
    pending = [each.id for each in chosen]
    if any(each.scope == "service" for each in chosen):
        pending += ROOTS
    while pending:
        name = pending.pop()
        if name not in wanted and name in by_id:
            wanted.add(name)
            pending += by_id[name].after
    return [each for each in every if each.id in wanted]


async def examine(executor: Executor, request: Request) -> Examined:
    """Check one service, or the host's runtime; raises UsageError, and what no check can survive (`probe.FATAL`)."""
    probe = Probe(executor, run_as=request.run_as)
    if request.name == LOCAL_RUNTIME:
        every = [each for each in checks(OF_A_HOST) if each.scope != "service"]
        look, subject = Look(probe, options=request.options), "host"
    else:
        every = checks(OF_A_SERVICE)
        service = await find_service(probe, request)
        look, subject = Look(probe, service, request.options), f"service:{service.name}"
    chosen = select(every, request.only)
    findings = await Engine(look, subject).run(with_causes(chosen, every))
    asked = {each.id for each in chosen}
    asked |= {each.because for each in findings if each.id in asked and each.because}
    return Examined(
        executor.host, [each for each in findings if each.id in asked], [each for each in every if each.id in asked]
    )


async def find_service(probe: Probe, request: Request) -> Service:
    """Return the service with what is declared and installed of it; raises UsageError, BadDeclaration."""
    name = request.name
    unit = name if name.endswith(SUFFIXES) else f"{name}.service"
    stem = unit.removesuffix(".service")
    try:
        service_name(unit)
        odd = not stem or stem.startswith(".")
    except BadStep:
        if not is_label(name) or await Look(probe).system() != "Darwin":
            raise
        odd = False
    if odd and (stem in ("", ".", "..") or await Look(probe).system() != "Darwin"):
        raise UsageError(f"{name[:60]!r} is no name of a service", hint="a unit's name, as systemd.unit(5) has it")
    declared = request.declaration or await declared_on_host(probe, stem, user=request.user)
    user = request.user or (declared is not None and declared.scope == "user")
    receipt, problem = await _receipt(probe, stem, user)
    return Service(stem, unit, user, declared, receipt, problem)


async def _receipt(probe: Probe, name: str, user: bool) -> tuple[Receipt | None, str | None]:
    directory = RECEIPTS
    try:
        if user:
            home = str((await probe.facts("user")).get("home"))
            directory = f"{home}/.local/state/ops-agent/services"
        return await read_receipt(probe, directory, name), None
    except Unreadable as error:
        return None, error.reason


async def require_own(probe: Probe, path: str) -> None:
    """Raise UsageError when others may change a declaration: it names commands that are run, and waives findings."""
    from agent.services.checks.svc_files import ancestors, judge_place

    uid = int((await probe.facts("user"))["uid"])
    for place in ancestors(path):
        stat = await probe.stat(place)
        why = judge_place(stat, (0, uid)) if stat.exists else None
        if why or (place == path and stat.kind != "file"):
            text = f"the declaration {path} isn't used: {place} {why or f'is a {stat.kind}'}"
            raise UsageError(text, hint="chown it to root, and take the others' write permission")


async def declared_on_host(probe: Probe, name: str, *, user: bool) -> Declaration | None:
    """Return the declaration that stands on the host; None where there is none. Raises BadDeclaration, UsageError."""
    try:
        home = (await probe.facts("user")).get("home")
        own = f"{home}/.config/ops-agent/services"
        for directory in (own, DECLARATIONS) if user else (DECLARATIONS, own):
            path = f"{directory}/{name}.toml"
            if (await probe.stat(path)).exists:
                await require_own(probe, path)
                from agent.services.declaration import MAX_BYTES, parse_declaration

                file = await probe.read(path, max_bytes=MAX_BYTES)
                return parse_declaration(file.data, path)
    except Unreadable as error:
        # Judging a declared service without its declaration would pass what the declaration forbids.
        raise UsageError(f"the declaration of {name} can't be read: {error.reason}", hint=error.hint) from error
    return None
