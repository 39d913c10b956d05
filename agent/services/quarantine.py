"""quarantine: evidence first, then stopped, withdrawn and masked, in the order that a real systemd accepts."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act, Done, do, now
from agent.services.artifact import Places
from agent.services.bundle import SCHEMA, Manifest, newest, write_files, write_manifest
from agent.services.declaration import Quarantine
from agent.services.doctor import Request, examine, find_service
from agent.services.evidence import Capture, Captured, Source, redacted
from agent.services.finding import Finding
from agent.services.held import NOTE, hold, put_aside, read_held, withdraw
from agent.services.look import Look, Service
from agent.services.manager import Manager
from agent.services.managers import manager_of
from agent.services.outcome import Outcome
from agent.services.probe import Probe, Unreadable
from opsexec.errors import OpsError, StepFailed, UsageError
from opsexec.principal import local_principal
from opsexec.steps import PodmanRemove, Stat

if TYPE_CHECKING:
    from opsexec.executor import Executor


class Scene(msgspec.Struct, kw_only=True):
    """What a quarantine or release is about."""

    service: Service
    places: Places
    look: Look
    manager: Manager
    state: dict[str, str]

    @property
    def unit(self) -> str:
        """What its manager calls it."""
        return self.manager.unit

    @property
    def contained(self) -> bool:
        """Whether nothing of it runs, or can be started."""
        return self.manager.contained(self.state)


async def scene(executor: Executor, request: Request) -> Scene:
    """Look at the service; raises UsageError where there is none, or nobody answers for it."""
    probe = Probe(executor, run_as=request.run_as)
    service = await find_service(probe, request)
    look = Look(probe, service)
    try:
        manager = await manager_of(look)
        state = await manager.state()
    except Unreadable as error:
        raise UsageError(f"nothing can be done with {service.unit}: {error.reason}", hint=error.hint) from error
    return Scene(service=service, places=manager.places, look=look, manager=manager, state=state)


def containment(scene: Scene, containers: list[str], moved: str | None) -> list[Act]:
    """Return the acts that contain it, in the order that its manager accepts."""
    declared = scene.service.declaration
    link = declared.podman.connection if declared else None
    leftovers = [
        Act(f"remove-container.{each}", PodmanRemove(each, link), "it outlived its unit") for each in containers
    ]
    away = [] if moved is None else [withdraw(moved, scene.places.held)]
    return scene.manager.contain(leftovers, away)


async def quarantine(executor: Executor, request: Request, *, execute: bool, say: Callable[[str], None]) -> Outcome:
    """Contain a service, or say what would be done; raises OpsError. `say` is told what happens while it happens."""
    here = await scene(executor, request)
    refused = here.manager.protected()
    if refused is not None:
        raise UsageError(refused, hint="stop it by hand if you must")
    before = await newest(executor, here.places.quarantine, here.service.name)
    if before is not None and before[1].state == "contained" and here.contained:
        return Outcome(ok=True, notes=[f"{here.unit} is in quarantine already: {before[0]}"], bundle=before[0])
    path = here.manager.definition
    moved = await _to_move(executor, path)
    # Its definition may be away already: a run was cut off, or somebody has undone a part of it by hand.
    waits = moved is None and (await here.look.probe.stat(f"{here.places.held}/{NOTE}")).exists
    again = before is not None and (before[1].state == "captured" or (before[1].state == "contained" and waits))
    if not again and here.state["LoadState"] == "not-found" and here.state["ActiveState"] in ("inactive", "failed"):
        raise UsageError(f"there is no {here.unit} on this host", hint="see `ops-agent list`")
    captured, findings = await _evidence(executor, request, here)
    acts = containment(here, captured.containers, moved)
    if not execute:
        notes = [
            f"first, {len(captured.sources)} sources are captured into {here.places.quarantine}/{here.service.name}"
        ]
        notes += here.manager.caveats
        return Outcome(ok=True, plan=acts, findings=findings, notes=[*notes, *captured.incomplete])
    for each in here.manager.caveats:
        say(each)
    if before is not None and again:
        bundle, manifest = before
        say(f"going on with {bundle}, whose evidence was taken already")
    else:
        bundle, manifest = await _write(executor, here, captured, findings, None if before is None else before[0])
        say(f"evidence: {len(manifest.files)} files in {bundle}")
    earlier = await _hold(executor, here, path, moving=moved is not None)
    if earlier is not None:
        say(f"what an earlier quarantine took away waits in {earlier} now")
    done = []
    for act in acts:
        done += await _contain(executor, act, here)
        say(f"{act.id}: {'done' if done[-1].rc == 0 else done[-1].error}")
    manifest.steps += done
    after = await scene(executor, request)
    verified = after.contained
    manifest.steps.append(_verified(after))
    manifest.state = "contained" if verified else "captured"
    await write_manifest(executor, bundle, manifest)
    failed = [each for each in done if each.rc != 0]
    notes = [f"{each.id} failed: {each.error}" for each in failed]
    notes += [*here.manager.caveats, *here.manager.leftover_note(here.state)]
    if not verified:
        notes.append(f"{here.unit} is {after.state['LoadState']} and {after.state['ActiveState']}: not contained")
    return Outcome(
        ok=verified and not failed, plan=acts, done=manifest.steps, findings=findings, notes=notes, bundle=bundle
    )


async def _to_move(executor: Executor, path: str) -> str | None:
    """Return the definition's path where it stands in the way of a mask; a mask that is there already doesn't."""
    stat = (await executor.run(Stat(path))).value
    if not stat["exists"] or (stat["kind"] == "link" and stat["target"] == "/dev/null"):
        return None
    if stat["kind"] not in ("file", "link"):
        raise StepFailed(f"{path} is a {stat['kind']}", hint="look at it by hand")
    return path


async def _evidence(executor: Executor, request: Request, here: Scene) -> tuple[Captured, list[Finding]]:
    declared = here.service.declaration
    wanted = declared.quarantine if declared else Quarantine()
    captured = await Capture(here.manager, wanted).take()
    findings: list[Finding] = []
    try:
        findings = (await examine(executor, request)).findings
    except OpsError as error:
        captured.incomplete.append(f"doctor: {error.message}")
    return captured, findings


async def _write(
    executor: Executor, here: Scene, captured: Captured, findings: list[Finding], before: str | None
) -> tuple[str, Manifest]:
    """Write bundle and manifest before anything is touched; raises OpsError. `before`: the newest bundle until now."""
    created = now()
    stamp = re.sub(r"[^0-9TZ]", "", created)
    last = (before or "").rpartition("/")[2]
    if stamp <= last:
        stamp = f"{last}.1"  # the clock was put back since: the newest is found by its name all the same
    bundle = f"{here.places.quarantine}/{here.service.name}/{stamp}"
    report = json.dumps([msgspec.to_builtins(each) for each in findings]).encode()
    restore = [["ops-agent", "release", here.service.name, *(["--user"] if here.service.user else []), "--execute"]]
    sources = [
        *captured.sources,
        Source(id="doctor", file="findings.json", form="json", argv=["ops-agent", "doctor", here.service.name],
               data=report, started_at=created),
        Source(id="remediation", file="remediation.md", form="text", argv=[],
               data=remediation(here, findings, captured.incomplete, restore).encode(), started_at=created),
    ]  # fmt: skip
    files, steps = await write_files(executor, bundle, redacted(sources))
    manifest = Manifest(
        schema=SCHEMA, subject=f"service:{here.service.name}", unit=here.unit, user=here.service.user,
        state="captured", created_at=created, host=executor.host, actor=local_principal(), steps=steps, files=files,
        incomplete=captured.incomplete, restore=restore, containers=captured.containers,
    )  # fmt: skip
    await write_manifest(executor, bundle, manifest)
    return bundle, manifest


def remediation(here: Scene, findings: list[Finding], incomplete: list[str], restore: list[list[str]]) -> str:
    """Return what a person does next, in Markdown."""
    lines = [f"# {here.unit} in quarantine", ""]
    state = here.state
    lines.append(
        f"It was {state['ActiveState']} ({state.get('SubState', '')}), restarted {state.get('NRestarts', '?')} times."
    )
    lines += ["", "## What is wrong with it", ""]
    for each in findings:
        if each.verdict in ("fail", "warn"):
            fix = f" {each.fix}." if each.fix else ""
            lines.append(f"- **{each.id}** ({each.verdict}): {each.summary}.{fix}")
    lines += ["", "## To put it back as it was", "", *(f"    {shlex.join(each)}" for each in restore), ""]
    lines += [f"Its definition waits, unredacted, in {here.places.held}. Release doesn't start it: add --start.", ""]
    if incomplete:
        lines += ["## What could not be captured", "", *(f"- {each}" for each in incomplete), ""]
    return "\n".join(lines)


async def _hold(executor: Executor, here: Scene, path: str, *, moving: bool) -> str | None:
    """Note what release puts back; what a quarantine that wasn't released has noted already is not overwritten.

    Returns where an earlier definition was put aside: somebody has put another one in its place since.
    """
    note, held = here.manager.note(here.state), here.places.held
    try:
        kept = await read_held(executor, held)
    except StepFailed:
        kept = None
    if kept is not None and not moving:
        return None
    if kept is not None:  # it may have been disabled and stopped since
        note = msgspec.structs.replace(
            note, unit_file_state=kept.unit_file_state, active_state=kept.active_state, loaded=kept.loaded
        )
    if not moving and here.state["LoadState"] == "masked":
        raise StepFailed(f"{here.unit} was masked by somebody else", hint="unmask it first, or leave it")
    earlier = await put_aside(executor, held, path, now()) if moving else None
    await hold(executor, held, path, note)
    return earlier


async def _contain(executor: Executor, act: Act, here: Scene) -> list[Done]:
    """Do one act; a stop that hangs is followed by SIGKILL to all that is left, and tried once more."""
    done = [await do(executor, act)]
    if act.id == "stop" and done[0].rc != 0:
        done += [await do(executor, here.manager.kill()), await do(executor, act)]
        if done[-1].rc == 0:
            done[0].error, done[0].rc = None, 0
    return done


def _verified(after: Scene) -> Done:
    state = after.state
    return Done(
        id="verify", argv=list(after.manager.shows), rc=0 if after.contained else 1, started_at=now(),
        duration_ms=0, error=None if after.contained else f"{state['LoadState']} {state['ActiveState']}",
    )  # fmt: skip


def counts_of(manifest: Manifest) -> Counter[str]:
    """Return how many places were redacted, by how they were found."""
    total: Counter[str] = Counter()
    for each in manifest.steps:
        total.update(each.redactions)
    return total
