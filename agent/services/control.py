"""Services that are there: started when they may, stopped, told about, taken away, and mended where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agent.services.acts import Act, Done, Say, do_all, unheard
from agent.services.check import checks
from agent.services.definition import as_it_stands
from agent.services.doctor import DECLARATIONS, LOCAL_RUNTIME, OF_A_SERVICE, Request, examine, find_service, with_causes
from agent.services.engine import Engine
from agent.services.finding import Finding
from agent.services.look import Look
from agent.services.manager import UNTESTED, Manager
from agent.services.managers import manager_of
from agent.services.outcome import Outcome
from agent.services.probe import Probe, Unreadable
from agent.services.receipt import RECEIPTS
from agent.services.secret_shapes import mask
from opsexec.errors import OpsError, UsageError
from opsexec.steps import Exec, RemoveFile

if TYPE_CHECKING:
    from opsexec.executor import Executor

TAIL = 256 << 10
"""Characters of a log that are shown at most."""
ENABLED = ("enabled", "enabled-runtime", "static", "generated", "transient", "alias", "indirect")


async def _managed(executor: Executor, request: Request) -> tuple[Manager, dict[str, str]]:
    """Look at a service anew; raises UsageError where nobody answers for it."""
    probe = Probe(executor, run_as=request.run_as)
    look = Look(probe, await find_service(probe, request))
    try:
        manager = await manager_of(look)
        return manager, await manager.state()
    except Unreadable as error:
        raise UsageError(f"{look.service.unit} can't be read: {error.reason}", hint=error.hint) from error


async def _carry_out(executor: Executor, manager: Manager, acts: list[Act], say: Say) -> list[Done]:
    for each in manager.caveats:
        say(each)
    return await do_all(executor, acts)


async def start(
    executor: Executor, request: Request, *, execute: bool, again: bool = False, say: Say = unheard
) -> Outcome:
    """Start (or restart) what is installed, enabled and passes its preflight; raises OpsError."""
    manager, state = await _managed(executor, request)
    look, unit, declared = manager.look, manager.unit, manager.look.declared
    if state["LoadState"] != "loaded":
        hint = "release it first" if state["LoadState"] == "masked" else "install it first"
        raise UsageError(f"{unit} is {state['LoadState']}", hint=hint)
    if declared is None:
        raise UsageError(f"nothing is declared of {look.service.name}", hint=f"use {manager.shows[0]}, or declare it")
    if declared.runtime != "systemd" and look.service.receipt is None:
        raise UsageError(f"{unit} was not installed by ops-agent", hint="install it, or declare runtime = systemd")
    if state.get("UnitFileState", "") not in ENABLED:
        text = f"{unit} is {state.get('UnitFileState') or 'not enabled'}: only what is enabled is started"
        raise UsageError(text, hint="declare enable = true, and install again")
    findings = await _preflight(look)
    blocking = [each for each in findings if each.blocks_preflight]
    if blocking:
        names = ", ".join(dict.fromkeys(each.id for each in blocking))
        return Outcome(ok=False, findings=findings, notes=[f"preflight: not passed ({names})", "nothing was started"])
    acts = manager.start(state, again=again)
    if not execute:
        return Outcome(ok=True, plan=acts, findings=findings, notes=["preflight: passed", *manager.caveats])
    done = await _carry_out(executor, manager, acts, say)
    _, after = await _managed(executor, request)
    ok = all(each.rc == 0 for each in done) and after["ActiveState"] in ("active", "activating", "reloading")
    notes = [_now(unit, after), *manager.caveats]
    if after.get("Result") == "exec-condition":
        notes.append("skipped: what it needs isn't there (its wrapper's `ready` says what)")
    return Outcome(ok=ok, plan=acts, done=done, findings=findings, notes=notes)


def _now(unit: str, state: dict[str, str]) -> str:
    return f"{unit} is {state['ActiveState']} ({state.get('SubState', '')}), {state.get('UnitFileState', '')}"


async def _preflight(look: Look) -> list[Finding]:
    every = checks(OF_A_SERVICE)
    chosen = [each for each in every if each.blocks and not each.opt_in]
    found = await Engine(look, f"service:{look.service.name}").run(with_causes(chosen, every))
    wanted = {each.id for each in chosen}
    return [each for each in found if each.id in wanted]


async def stop(executor: Executor, request: Request, *, execute: bool, say: Say = unheard) -> Outcome:
    """Stop a service; raises OpsError."""
    manager, state = await _managed(executor, request)
    if state["LoadState"] == "not-found" and manager.stopped(state):
        raise UsageError(f"there is no {manager.unit} on this host", hint="see `ops-agent list`")
    acts = manager.stop()
    if not execute:
        return Outcome(ok=True, plan=acts, notes=list(manager.caveats))
    done = await _carry_out(executor, manager, acts, say)
    _, after = await _managed(executor, request)
    ok = all(each.rc == 0 for each in done) and manager.stopped(after)
    return Outcome(ok=ok, plan=acts, done=done, notes=[_now(manager.unit, after), *manager.caveats])


async def uninstall(executor: Executor, request: Request, *, execute: bool, say: Say = unheard) -> Outcome:
    """Take away what the receipt lists and is still as it was installed; raises OpsError."""
    manager, state = await _managed(executor, request)
    look, service, places = manager.look, manager.look.service, manager.places
    if service.problem:
        raise UsageError(f"its receipt can't be read: {service.problem}", hint="look at it by hand")
    if service.receipt is None:
        raise UsageError(f"{manager.unit} was not installed by ops-agent", hint="quarantine it, or remove it by hand")
    if state["LoadState"] == "masked":
        raise UsageError(f"{manager.unit} is in quarantine", hint="release it first")
    acts = [] if state["LoadState"] == "not-found" else manager.withdraw()
    notes = list(manager.caveats)
    stays = False
    allowed = (manager.definition, places.wrapper(service.name))
    for path, digest in sorted(service.receipt.files.items()):
        if path not in allowed and not path.startswith(f"{places.state}/"):
            notes.append(f"{path} stays: it is no place of this service's")
            stays = True
            continue
        stat = await look.probe.stat(path)
        if stat.exists and stat.sha256 != digest:
            notes.append(f"{path} stays: it is not as it was installed")
            stays = True
        elif stat.exists and not path.startswith(f"{places.state}/"):
            acts.append(Act(f"remove {path}", RemoveFile(path)))
    acts += manager.reload("let the manager forget it")
    if not stays:
        acts.append(Act("state-directory", RemoveFile(places.state, recursive=True), "receipt, staged files"))
    if not execute:
        return Outcome(ok=True, plan=acts, notes=notes)
    done = await _carry_out(executor, manager, acts, say)
    ok = len(done) == len(acts) and all(each.rc == 0 for each in done) and not stays
    return Outcome(ok=ok, plan=acts, done=done, notes=notes)


async def status(executor: Executor, request: Request) -> Outcome:
    """Tell what a service is: declared, installed, enabled, running; raises OpsError."""
    manager, state = await _managed(executor, request)
    look, service = manager.look, manager.look.service
    held = (await look.probe.stat(f"{manager.places.held}/restore.json")).exists
    value: dict[str, Any] = {
        "unit": manager.unit, "user": service.user, "declared": look.declared is not None,
        "installed_by_us": service.receipt is not None, "quarantined": held,
        "receipt": None if service.receipt is None else msgspec.to_builtins(service.receipt),
        **{key: state.get(key, "") for key in ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result",
                                                "NRestarts", "MainPID", "FragmentPath", "ActiveEnterTimestamp")},
    }  # fmt: skip
    ours = "installed by ops-agent" if service.receipt else "not installed by ops-agent"
    notes = [_now(manager.unit, state), f"{ours}, {'declared' if value['declared'] else 'not declared'}"]
    if held:
        notes.append("in quarantine: `ops-agent release` undoes it")
    return Outcome(ok=state["ActiveState"] in ("active", "activating", "reloading"), notes=notes, value=value)


async def logs(executor: Executor, request: Request, *, lines: int) -> Outcome:
    """Return what a service said last, without what looks like a secret; raises OpsError."""
    manager, _ = await _managed(executor, request)
    look, question = manager.look, manager.journal()
    notes: list[str] = []
    if question is not None:
        try:
            said = (await look.probe.ask(question, look.service.unit, number=lines)).require_ok()
        except Unreadable as error:
            raise UsageError(f"its journal can't be read: {error.reason}", hint=error.hint) from error
        notes = mask(said.out[-TAIL:]).splitlines()
    for path in await _log_files(manager):
        try:
            file = await look.probe.read(path)
            if not await look.same_place(path, file.path):
                raise Unreadable("it is a link, or stands behind one: not shown")
            text = file.text[-TAIL:]
        except Unreadable as error:
            notes.append(f"{path}: {error.reason}")
            continue
        notes += [f"--- {path}", *mask(text).splitlines()[-lines:]]
    return Outcome(ok=True, notes=notes or [f"{manager.unit} names no log file, and its manager keeps none"])


async def _log_files(manager: Manager) -> list[str]:
    """Return the files that the declaration names and, where the manager keeps no log, those of the definition."""
    declared = manager.look.declared
    found = list(declared.logs.paths) if declared else []
    if manager.journal() is None:
        try:
            unit = (await as_it_stands(manager.look)).unit
        except Unreadable:
            return found  # `status` says what is wrong with it
        for key in ("StandardOutput", "StandardError"):
            found += [each.value.partition(":")[2] for each in unit.all("Service", key)]
    return [path for path in dict.fromkeys(found) if path.startswith("/")]


async def list_services(executor: Executor, *, user: bool, run_as: str | None) -> Outcome:
    """Return every service that is declared or was installed here; raises OpsError."""
    probe = Probe(executor, run_as=run_as)
    rows: list[dict[str, Any]] = []
    try:
        home = str((await probe.facts("user")).get("home"))
        declared_in = f"{home}/.config/ops-agent/services" if user else DECLARATIONS
        installed_in = f"{home}/.local/state/ops-agent/services" if user else RECEIPTS
        files = (await probe.survey(declared_in)).entries
        declared = {each.path.rpartition("/")[2].removesuffix(".toml") for each in files if each.path.endswith(".toml")}
        places = (await probe.survey(installed_in)).entries
        installed = {each.path.rpartition("/")[2] for each in places if each.kind == "directory"}
        for name in sorted(declared | installed):
            try:
                look = Look(probe, await find_service(probe, Request(name, user=user)))
                state = await (await manager_of(look)).state()
            except (Unreadable, OpsError) as error:
                rows.append({"name": name, "problem": str(error)})
                continue
            rows.append({"name": name, "declared": name in declared, "installed": look.service.receipt is not None,
                         "load": state["LoadState"], "active": state["ActiveState"],
                         "enabled": state.get("UnitFileState", "")})  # fmt: skip
    except Unreadable as error:
        raise UsageError(f"the host's services can't be read: {error.reason}", hint=error.hint) from error
    notes = [
        f"{row['name']:30} {row.get('problem') or '{active:12} {load:10} {enabled}'.format(**row)}" for row in rows
    ]
    return Outcome(ok=True, notes=notes or ["no service is declared or installed"], value=rows)


async def _caveats(executor: Executor, request: Request) -> tuple[str, ...]:
    try:
        darwin = await Look(Probe(executor, run_as=request.run_as)).system() == "Darwin"
    except Unreadable:
        return ()  # what the checks say of such a host is told
    return (UNTESTED,) if darwin else ()


async def repair(executor: Executor, request: Request, *, execute: bool, say: Say = unheard) -> Outcome:
    """Do what findings offer as a fix that destroys nothing, and examine again; raises OpsError."""
    before = (await examine(executor, request)).findings
    wrong = [each for each in before if each.verdict in ("fail", "warn")]
    safe = [each for each in wrong if each.fix is not None and each.fix.by_itself]
    acts = [Act(each.id, Exec(list(each.fix.argv), run_as=request.run_as), each.fix.text) for each in safe if each.fix]
    name = "" if request.name == LOCAL_RUNTIME else f" {request.name}"
    left = [each for each in before if each.verdict == "fail" and each not in safe]
    notes = [f"{each.id} takes a person: {each.fix or each.summary}" for each in left]
    caveats = await _caveats(executor, request) if acts else ()
    notes += caveats
    if not execute or not acts:
        return Outcome(ok=not before or not left, plan=acts, notes=notes or [f"nothing to repair{name}"])
    for caveat in caveats:
        say(caveat)
    done = await do_all(executor, acts, go_on=True)
    after = (await examine(executor, request)).findings
    ok = all(each.rc == 0 for each in done) and not any(each.verdict == "fail" for each in after)
    return Outcome(ok=ok, plan=acts, done=done, findings=after, notes=notes)
