"""Inquire, Survey and PingSocket: what a doctor asks a host, each within its own bounds."""

from __future__ import annotations

import msgspec

from opsexec.capability import clean_path, program_candidates
from opsexec.errors import BadStep, StepTimeout
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import Contents, answered, decoded, shaped
from opsexec.handlers.limits import call, require_within_limit
from opsexec.hosts.port import ProcessSpec
from opsexec.steps.base import Step
from opsexec.steps.doctor import Inquire, PingSocket, Survey
from opsexec.steps.text import as_bytes

FILE_LIMIT = 1 << 20
"""The largest file that a question may be about, in bytes."""


class SurveyEntry(msgspec.Struct, frozen=True):
    """One entry of a directory; `target`: of a link; `sha256`: of a small file, when it was asked for."""

    path: str
    kind: str
    size: int
    mode: str
    owner: str
    group: str
    uid: int
    gid: int
    mtime: float
    target: str | None
    sha256: str | None


class Surveyed(msgspec.Struct, frozen=True):
    """What `survey` tells."""

    exists: bool
    entries: list[SurveyEntry]
    cut: bool
    denied: int
    unreadable: int


class Pulse(msgspec.Struct, frozen=True):
    """What `ping_socket` tells."""

    state: str
    detail: str


async def handle(step: Step, context: Context) -> Outcome:
    """Do one step of the family."""
    match step:
        case Inquire():
            return await _inquire(step, context)
        case Survey():
            flags = [b"%d" % step.depth, b"%d" % step.max_entries, b"1" if step.digest else b"0"]
            return await _call("survey", step, flags, Surveyed, context)
        case PingSocket():
            return await _call("ping_socket", step, [], Pulse, context)
        case _:
            raise BadStep(f"{type(step).__name__} is no step of a doctor's")


async def _call(
    operation: str, step: Survey | PingSocket, more: list[bytes], shape: type[msgspec.Struct], context: Context
) -> Outcome:
    grants = pack_layers(context.capabilities.path_layers("fs.read"))
    (answer,) = await call(operation, [as_bytes(clean_path(step.path)), grants, *more], step.run_as, context, items=1)
    value = decoded(answer, context)
    shaped(value, shape, context)
    return Outcome(value=value)


async def _inquire(step: Inquire, context: Context) -> Outcome:
    """Run the question's program. The grant is on what is asked about, so the program itself needs no exec grant."""
    question = step.question
    argv, stdin = step.argv(), None
    if question.file:
        path, content = await _file(step, context)
        argv = tuple(path if word == clean_path(step.subject) else word for word in argv)
        stdin = content if question.file == "stdin" else None
    programs = program_candidates(argv[0])
    limit = context.timeout_s
    timeout_s = question.timeout_s if limit is None else min(limit, question.timeout_s)
    spec = ProcessSpec(
        run=context.run,
        programs=programs,
        admitted=programs,
        argv=argv,
        env=await _environment(step, context),
        stdin=stdin,
        run_as=step.run_as,
        timeout_s=timeout_s,
    )
    recorder = context.recorder
    if recorder.limit_bytes is None or recorder.limit_bytes > question.max_bytes:
        recorder.limit_bytes = question.max_bytes
    try:
        ended = await context.host.run_process(spec, context.recorder)
    except StepTimeout as error:
        text = f"{argv[0]} gave no answer within {timeout_s:g} s"
        raise StepTimeout(text, host=context.host.name, hint="it hangs, or the host is overloaded") from error
    require_within_limit(context)
    return Outcome(exit=ended)


async def _file(step: Inquire, context: Context) -> tuple[str, bytes]:
    """Return a file's path without links, and its content: the walk settles that the grants admit both names of it."""
    path = as_bytes(clean_path(step.subject))
    grants = pack_layers(context.capabilities.path_layers("fs.read"))
    args = [path, grants, b"0", b"%d" % FILE_LIMIT]
    data, meta = await call("read_file", args, step.run_as, context, items=2)
    return answered(meta, Contents, context).path, data


async def _environment(step: Inquire, context: Context) -> dict[str, str]:
    """Return what the programs' words depend on, and where the user's own manager and podman listen."""
    env = {"LC_ALL": "C", "SYSTEMD_COLORS": "0", "NO_COLOR": "1"}
    if step.user or step.question.argv[0] == "podman":
        (facts,) = await call("facts", [b"user"], step.run_as, context, items=1)
        user = decoded(facts, context).get("user")
        runtime = user.get("runtime_dir") if isinstance(user, dict) else None
        if isinstance(runtime, str):
            env["XDG_RUNTIME_DIR"] = runtime
    return env
