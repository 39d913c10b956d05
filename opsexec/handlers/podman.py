"""A doctor's container step, through podman: looked at first, changed only where there is something to change."""

from __future__ import annotations

from opsexec.capability import program_candidates
from opsexec.errors import BadStep, StepFailed
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import decoded
from opsexec.handlers.limits import call, within
from opsexec.hosts.port import ProcessExit, ProcessSpec
from opsexec.recorder import Recorder
from opsexec.steps.base import Step
from opsexec.steps.definitions import PodmanRemove

MISSING = 1
"""What `podman container exists` ends with where there is none, podman-container-exists(1)."""


async def handle(step: Step, context: Context) -> Outcome:
    """Do one step of the family."""
    if isinstance(step, PodmanRemove):
        return await within(f"removing container {step.name}", _remove(step, context), context)
    raise BadStep(f"{type(step).__name__} is no container step")


async def _remove(step: PodmanRemove, context: Context) -> Outcome:
    ended, _ = await _podman(step, context, "container", "exists", "--", step.name)
    if ended.exit_code == MISSING:
        return Outcome(value={"name": step.name, "removed": False})
    if context.check:
        return Outcome(changed=True, diff=f"remove container {step.name}\n" if context.diff else None)
    ended, said = await _podman(step, context, "rm", "--force", "--time", "0", "--", step.name)
    if ended.exit_code != 0:
        last = said.strip().rpartition("\n")[2][:200]
        raise StepFailed(f"can't remove container {step.name}: {last or ended.signal}", host=context.host.name)
    return Outcome(changed=True, value={"name": step.name, "removed": True})


async def _podman(step: PodmanRemove, context: Context, *words: str) -> tuple[ProcessExit, str]:
    """Run podman. The grant is container.remove, so the program needs no exec grant."""
    programs = program_candidates("podman")
    env = {"LC_ALL": "C"}
    (facts,) = await call("facts", [b"user"], step.run_as, context, items=1)
    user = decoded(facts, context).get("user")
    runtime = user.get("runtime_dir") if isinstance(user, dict) else None
    if isinstance(runtime, str):
        env["XDG_RUNTIME_DIR"] = runtime
    link = ("--connection", step.connection) if step.connection else ()
    recorder = Recorder()
    spec = ProcessSpec(
        run=context.run,
        programs=programs,
        admitted=programs,
        argv=("podman", *link, *words),
        env=env,
        run_as=step.run_as,
    )
    ended = await context.host.run_process(spec, recorder)
    return ended, recorder.tail(1).decode("utf-8", "replace")
