"""Exec and Shell: decide the process, run it, say that it changed the host (nobody can know that it did not)."""

from __future__ import annotations

from opsexec.capability import Requirement, clean_path, plain_argv, program_candidates
from opsexec.errors import BadStep
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.existence import exists
from opsexec.hosts.port import ProcessSpec
from opsexec.secret import reveal
from opsexec.steps.process import Exec, Process, Shell
from opsexec.steps.text import as_bytes


async def handle(step: Process, context: Context) -> Outcome:
    """Run an Exec or Shell step. In check mode nothing runs, and `changed` is assumed."""
    if step.creates is not None and await exists(step.creates, step.run_as, context):
        return Outcome(skipped=f"{step.creates} exists")
    if context.check:
        return Outcome(changed=True, skipped="check mode: programs are not run")
    ended = await context.host.run_process(specify(step, context), context.recorder, context.stdin)
    return Outcome(exit=ended, changed=True)


def specify(step: Process, context: Context) -> ProcessSpec:
    """Return the process a step stands for."""
    if isinstance(step, Exec):
        argv = plain_argv(step.argv)
        programs = program_candidates(argv[0])
        admitted = context.capabilities.admitted_programs(Requirement("exec", argv))
    elif isinstance(step, Shell):
        argv = (step.interpreter, "-c", "--", step.script, step.action)  # a script may begin with a dash
        programs = admitted = (step.interpreter,)
    else:
        raise BadStep(f"{type(step).__name__} starts no process")
    return ProcessSpec(
        run=context.run,
        programs=programs,
        admitted=admitted,
        argv=argv,
        env={name: reveal(value) for name, value in step.env.items()},
        cwd=None if step.cwd is None else clean_path(step.cwd),
        stdin=None if step.stdin is None else as_bytes(reveal(step.stdin)),
        run_as=step.run_as,
        timeout_s=context.timeout_s,
    )
