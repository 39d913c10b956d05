"""Git steps: each is a small program of the far half, started for it, in a process tree of its own."""

from __future__ import annotations

import importlib.util
import json
import marshal
from functools import cache
from importlib.resources import files
from typing import Any

from opsexec.capability import clean_path
from opsexec.errors import BadStep, HostUnsuitable, ProgramNotFound, ProtocolError, StepFailed
from opsexec.far.message import pack_message
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import decoded
from opsexec.hosts.bootstrap import needed
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder
from opsexec.secret import reveal
from opsexec.steps.base import Step
from opsexec.steps.git import Declared, GitFetch, GitForward, GitScan

PYTHON = ("/usr/bin/python3", "/usr/local/bin/python3")
TIMEOUT_S = 300.0
"""A step's own deadline where neither it nor its capabilities have one: no push waits for ever."""

# importlib.util has the magic number too, and takes longer to import than all the rest of this.
START = """
import sys,struct,marshal
from importlib import _bootstrap_external as B
from importlib.machinery import ModuleSpec
MAGIC_NUMBER=getattr(B,"MAGIC_NUMBER",None)
r=sys.stdin.buffer.read
n,=struct.unpack(">I",r(4))
I=[r(*struct.unpack(">I",r(4)))for _ in range(n)]
name,request,magic=I[:3]
S={I[k].decode():(I[k+1],I[k+2])for k in range(3,n,3)}
P=("opsexec","opsexec.far")
class F:
 def find_spec(s,m,p=None,t=None):
  if m in S or m in P:return ModuleSpec(m,s,is_package=m in P)
 def create_module(s,spec):return None
 def exec_module(s,m):
  if m.__name__ in S:
   c,b=S[m.__name__]
   exec(marshal.loads(b)if magic==MAGIC_NUMBER else compile(c,m.__name__,"exec",dont_inherit=True),m.__dict__)
sys.meta_path.insert(0,F())
from opsexec.far.git_program import run
sys.exit(run(name.decode("utf-8","surrogateescape"),request))
"""


async def handle(step: Step, context: Context) -> Outcome:
    """Refresh, scan or forward. In check mode nothing is started but a scan of a push, which changes nothing."""
    if isinstance(step, GitFetch):
        if context.check:
            return Outcome(changed=True, skipped="check mode: the upstream is not asked")
        answer = await _run("fetch", step, {"place": clean_path(step.place), "hold": step.hold}, context)
        return Outcome(changed=bool(answer.get("changed")), value=_value(answer))
    if isinstance(step, (GitScan, GitForward)):
        quarantine = None if step.quarantine is None else clean_path(step.quarantine)
        request: dict[str, Any] = {"place": clean_path(step.place), "quarantine": quarantine, "updates": step.updates}
        if isinstance(step, GitForward):
            if context.check:
                return Outcome(changed=True, skipped="check mode: nothing is forwarded")
            answer = await _run("forward", step, {**request, "line": step.line}, context)
            return Outcome(changed=bool(answer.get("refs")), value=_value(answer))
        if context.check and quarantine is None:
            return Outcome(skipped="check mode: there is no push yet")
        request["scanner"] = step.scanner
        if step.known is not None:
            request["known"] = json.loads(reveal(step.known))
        return Outcome(value=_value(await _run("scan", step, request, context)))
    raise BadStep(f"{type(step).__name__} is no git step")


def _value(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ok"}


async def _run(name: str, step: Declared, request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Run one program to its end and return its answer; raises StepFailed with the reason when it refuses."""
    host = context.host.name
    spec = ProcessSpec(
        run=context.run,
        programs=PYTHON,
        admitted=PYTHON,
        argv=("python3", "-I", "-S", "-X", "utf8", "-c", START),
        stdin=pack_message([_title(name, request), json.dumps(request).encode(), *_modules()]),
        run_as=step.run_as,
        timeout_s=context.timeout_s or TIMEOUT_S,
    )
    held = isinstance(step, GitFetch) and step.hold
    recorder = context.recorder if held else Recorder(limit_bytes=1 << 20)
    try:
        listens = held or (isinstance(step, (GitScan, GitForward)) and step.quarantine is None)
        ended = await context.host.run_process(spec, recorder, context.stdin if listens else None)
    except ProgramNotFound as error:
        raise HostUnsuitable("there is no python3", host=host, hint="the gate's programs need it") from error
    if ended.exit_code != 0:
        how = ended.signal or f"exit status {ended.exit_code}"
        last = recorder.tail(1).decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        text = f"git {name} of {step.repository} ended without an answer ({how}): {last}"
        raise StepFailed(text, host=host, hint="nothing was accepted")
    answer = decoded(recorder.tail(0), context)
    if answer.get("ok") is True:
        return answer
    reason = answer.get("reason")
    if not isinstance(reason, str):
        raise ProtocolError(f"git {name} answered neither yes nor why not", host=host)
    raise StepFailed(reason, host=host, hint="the upstream, its key and its host key are in the bottle's manifest")


def _title(name: str, request: dict[str, Any]) -> bytes:
    """Return what a program is told before its request is read: of a scan, what it starts its scanner with."""
    words = (name, request["place"], request["scanner"]) if name == "scan" else (name,)
    return "\0".join(words).encode("utf-8", "surrogateescape")


@cache
def _modules() -> tuple[bytes, ...]:
    """Return the byte code's magic, then name, source and byte code of every module of the git programs."""
    found: list[bytes] = [importlib.util.MAGIC_NUMBER]
    for stem in needed("git_program"):
        source = files("opsexec.far").joinpath(f"{stem}.py").read_bytes()
        name = f"opsexec.far.{stem}"
        found += [name.encode(), source, marshal.dumps(compile(source, name, "exec", dont_inherit=True))]
    return tuple(found)
