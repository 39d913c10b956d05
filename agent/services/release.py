"""release: a quarantine undone. The definition is put back as it was; starting it again is asked for by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act, do_all
from agent.services.bundle import newest, write_manifest
from agent.services.doctor import Request
from agent.services.held import back, forget, read_held
from agent.services.outcome import Outcome
from agent.services.quarantine import scene
from opsexec.errors import StepFailed
from opsexec.steps import ServiceControl

if TYPE_CHECKING:
    from opsexec.executor import Executor


async def release(
    executor: Executor, request: Request, *, execute: bool, start: bool, say: Callable[[str], None]
) -> Outcome:
    """Undo a quarantine, or say what would be done; raises OpsError."""
    here = await scene(executor, request)
    found = await newest(executor, here.places.quarantine, here.service.name)
    if found is None or found[1].state == "released":
        return Outcome(ok=True, notes=[f"{here.unit} is not in quarantine"])
    bundle, manifest = found
    held = await read_held(executor, here.places.held)
    expected = here.places.units + f"/{here.unit}"
    if held.unit != here.unit or held.path not in (None, expected):
        raise StepFailed(f"{here.places.held} is about another definition", hint="look at it by hand")
    acts = await back(executor, held, here.places.held)
    if start:
        acts.append(Act("start", ServiceControl(here.unit, "start", here.service.user), "asked for by --start"))
    acts.append(forget(here.places.held))
    if not execute:
        return Outcome(ok=True, plan=acts, bundle=bundle)
    done = await do_all(executor, acts)
    for each in done:
        say(f"{each.id}: {each.error or 'done'}")
    ok = all(each.rc == 0 for each in done) and len(done) == len(acts)
    manifest.steps += [msgspec.structs.replace(each, id=f"release.{each.id}") for each in done]
    manifest.state = "released" if ok else manifest.state
    await write_manifest(executor, bundle, manifest)
    notes = [f"{each.id} failed: {each.error}" for each in done if each.rc != 0]
    if ok and not start and held.active_state == "active":
        notes.append(f"it was running before: `ops-agent start {here.service.name} --execute` starts it")
    return Outcome(ok=ok, plan=acts, done=done, notes=notes, bundle=bundle)
