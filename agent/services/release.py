"""release: a quarantine undone. The definition is put back as it was; starting it again is asked for by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import do_all
from agent.services.bundle import newest, write_manifest
from agent.services.doctor import Request
from agent.services.held import NOTE, forget, read_held, restore
from agent.services.outcome import Outcome
from agent.services.quarantine import scene
from opsexec.errors import StepFailed

if TYPE_CHECKING:
    from opsexec.executor import Executor


async def release(
    executor: Executor, request: Request, *, execute: bool, start: bool, say: Callable[[str], None]
) -> Outcome:
    """Undo a quarantine, or say what would be done; raises OpsError."""
    here = await scene(executor, request)
    manager = here.manager
    found = await newest(executor, here.places.quarantine, here.service.name)
    if found is None or found[1].state == "released":
        return Outcome(ok=True, notes=[f"{here.unit} is not in quarantine"])
    bundle, manifest = found
    if not here.contained and not (await here.look.probe.stat(f"{here.places.held}/{NOTE}")).exists:
        manifest.state = "released"  # by a run that was cut off before it could write so
        if execute:
            await write_manifest(executor, bundle, manifest)
        return Outcome(ok=True, notes=[f"{here.unit} was released already"], bundle=bundle)
    held = await read_held(executor, here.places.held)
    if not held.unit == here.unit == manifest.unit or not manager.restorable(held.path):
        raise StepFailed(f"{here.places.held} is about another definition", hint="look at it by hand")
    acts = manager.put_back(held, await restore(executor, held, here.places.held), start=start)
    acts.append(forget(here.places.held))
    if not execute:
        return Outcome(ok=True, plan=acts, notes=list(manager.caveats), bundle=bundle)
    for each in manager.caveats:
        say(each)
    done = await do_all(executor, acts)
    for record in done:
        say(f"{record.id}: {record.error or 'done'}")
    ok = all(each.rc == 0 for each in done) and len(done) == len(acts)
    manifest.steps += [msgspec.structs.replace(each, id=f"release.{each.id}") for each in done]
    manifest.state = "released" if ok else manifest.state
    await write_manifest(executor, bundle, manifest)
    notes = list(manager.caveats)
    notes += [f"{each.id} failed: {each.error}" for each in done if each.rc != 0]
    runs = (await scene(executor, request)).state["ActiveState"] in ("active", "activating", "reloading")
    if held.loaded and not any(each.id == "bootstrap" for each in acts):
        why = "it was disabled, a link, or stood elsewhere"
        notes.append(f"launchd had loaded it; it isn't loaded again, for {why}")
    if ok and held.active_state == "active" and not runs:
        notes.append(f"it was running before: `ops-agent start {here.service.name} --execute` starts it")
    return Outcome(ok=ok, plan=acts, done=done, notes=notes, bundle=bundle)
