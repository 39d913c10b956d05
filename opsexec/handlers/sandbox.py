"""SandboxRun: bubblewrap, told to unshare everything and to bind what the step names, and a keeper around it."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import marshal
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from opsexec.capability import clean_path, program_candidates
from opsexec.errors import BadStep, HostUnsuitable, ProgramNotFound
from opsexec.far.message import pack_layers
from opsexec.handlers.bind_sources import bind_sources
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.far_answers import Existence, answered
from opsexec.handlers.limits import call
from opsexec.hosts.bootstrap import needed
from opsexec.hosts.port import ProcessSpec
from opsexec.secret import reveal
from opsexec.steps.base import Step
from opsexec.steps.sandbox import SandboxRun, is_tree
from opsexec.steps.text import as_bytes

FIRST = "/usr/bin/python3"
"""What becomes the program, inside."""

UNSHARE = ("user", "ipc", "pid", "uts", "cgroup")

COVERED = ("/proc/sys",)
COVERED_IF_THERE = ("/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi")
"""Parts of /proc that change the host. bubblewrap covers them only where access(2) says that the directory is writable,
which is false for root's 0555 directories, whose files root may write all the same (docs/decisions/0040)."""


MASKED = tuple(
    f"/proc/{name}"
    for name in (
        "kcore", "kpagecount", "kpageflags", "kpagecgroup", "slabinfo", "vmallocinfo", "pagetypeinfo", "timer_list",
        "kallsyms", "keys", "key-users", "iomem", "ioports", "mtrr", "sched_debug", "latency_stats", "config.gz",
        "cmdline", "interrupts",
    )
)  # fmt: skip
"""What tells of the whole host. Most are root's own, which is who the program is outside when root started it; the
kernel's own words (which may hold secrets) and its interrupts (by which keys pressed are timed) are anybody's."""


async def handle(step: Step, context: Context) -> Outcome:
    """Run a sandbox to its end. In check mode nothing is started."""
    if not isinstance(step, SandboxRun):
        raise BadStep(f"{type(step).__name__} is no sandbox step")
    sources = await bind_sources(step.read_only, step.writable, step.run_as, context)
    if context.check:
        return Outcome(changed=True, skipped="check mode: programs are not run")
    masked = await _there(MASKED, ("/proc/*",), step, context)
    candidates = program_candidates("bwrap")
    found = await _there(candidates, candidates, step, context)
    if not found:
        raise HostUnsuitable("there is no bwrap", host=context.host.name, hint="apt-get install bubblewrap")
    programs = program_candidates("python3")
    header = environment_header({name: reveal(value) for name, value in step.env.items()})
    given = b"" if step.stdin is None else as_bytes(reveal(step.stdin))
    spec = ProcessSpec(
        run=context.run,
        programs=programs,
        admitted=programs,
        argv=(*keeper_words(step, sources), "--", *words(step, sources, masked, found[0])),
        stdin=header + given,
        run_as=step.run_as,
        timeout_s=context.timeout_s,
    )
    try:
        ended = await context.host.run_process(spec, context.recorder, context.stdin)
    except ProgramNotFound as error:
        raise HostUnsuitable("there is no python3", host=context.host.name, hint="install it") from error
    return Outcome(exit=ended, changed=True)


async def _there(paths: Sequence[str], grants: Sequence[str], step: SandboxRun, context: Context) -> list[str]:
    """Return those of these paths that this host has."""
    layer = pack_layers((tuple(grants),))
    asked = (call("stat", [as_bytes(path), layer], step.run_as, context, items=1) for path in paths)
    answers = await asyncio.gather(*asked)
    return [path for path, (answer,) in zip(paths, answers, strict=True) if answered(answer, Existence, context).exists]


def environment_header(env: dict[str, str]) -> bytes:
    """Return an environment as `opsexec.far.doors` reads it."""
    body = b"\0".join(as_bytes(word) for pair in env.items() for word in pair)
    return b"%08x" % len(body) + body


def keeper_words(step: SandboxRun, sources: dict[str, str]) -> list[str]:
    """Return the argv of the process that stays outside: limits, and the trees it watches."""
    argv = ["python3", "-I", "-S", "-X", "utf8", "-c", keeper(), step.name]
    argv += [f"processes={step.max_processes}", f"memory={step.max_memory_bytes}", f"cpus={step.max_cpus:g}"]
    argv += [f"bytes={step.max_tree_bytes}", f"files={step.max_tree_files}", f"expendable={int(step.expendable)}"]
    return argv + [f"tree={sources[host]}" for host in dict.fromkeys(step.writable.values()) if is_tree(host)]


def words(step: SandboxRun, sources: dict[str, str], masked: Sequence[str] = (), program: str = "bwrap") -> list[str]:
    """Return bubblewrap's argv. No value of the environment is in it. `masked`: files that are to be unreadable."""
    argv = [program, *(f"--unshare-{name}" for name in UNSHARE)]
    if not step.network:
        argv.append("--unshare-net")
    argv += ["--as-pid-1", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    argv += ["--uid", str(step.uid), "--gid", str(step.gid), "--hostname", step.hostname]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    # The /dev that bubblewrap makes is a tmpfs of half the machine's memory.
    argv += ["--size", str(step.tmpfs_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    for path in COVERED:
        argv += ["--ro-bind", path, path]
    for path in COVERED_IF_THERE:
        argv += ["--ro-bind-try", path, path]
    for path in masked:
        argv += ["--ro-bind", "/dev/null", path]
    mounts = [(clean_path(path), ["--size", str(step.tmpfs_bytes), "--tmpfs"], "") for path in step.tmpfs]
    mounts += [(clean_path(path), ["--ro-bind", sources[host]], "") for path, host in step.read_only.items()]
    mounts += [(clean_path(path), ["--bind", sources[host]], "") for path, host in step.writable.items()]
    mounts += [(clean_path(path), ["--symlink", target], "") for path, target in step.links.items()]
    # Outer places first: what is mounted later covers what was there.
    for path, how, _ in sorted(mounts, key=lambda mount: (mount[0].count("/"), mount[0])):
        argv += [*how, path]
    argv += ["--remount-ro", "/"]
    doors = ",".join(f"{port}={clean_path(path)}" for port, path in step.doors.items()) or "-"
    argv += ["--", FIRST, "-I", "-S", "-c", first_program()]
    argv += [clean_path(step.cwd), str(step.max_open_files), str(step.max_file_bytes), str(step.max_processes), doors]
    argv.append("alone" if step.pid_one else "beside")
    return [*argv, "--", *step.argv]


@cache
def first_program() -> str:
    """Return the source of what runs first inside."""
    return files("opsexec.far").joinpath("doors.py").read_text("utf-8")


@cache
def keeper() -> str:
    """Return the program that stays outside: the far modules it is made of, in one text that needs no file.

    Each goes as source, and compiled for the frequent case that both Pythons have one byte code.
    """
    stems = sorted(needed("sandbox_keep"), key=lambda stem: len(needed(stem)))  # what one imports stands before it
    sources = {f"opsexec.far.{stem}": files("opsexec.far").joinpath(f"{stem}.py").read_bytes() for stem in stems}
    compiled = [
        (name, marshal.dumps(compile(text, name, "exec", dont_inherit=True, optimize=2)))
        for name, text in sources.items()
    ]
    blob = marshal.dumps((importlib.util.MAGIC_NUMBER, tuple(compiled), tuple(sources.items())), 2)
    whole = base64.b64encode(zlib.compress(blob, 9)).decode()
    return _LOADER.replace("WHOLE", repr(whole))


_LOADER = """import binascii,marshal,sys,zlib
import _frozen_importlib_external as X
G,C,T=marshal.loads(zlib.decompress(binascii.a2b_base64(WHOLE)))
K=type(sys)
for n in ("opsexec","opsexec.far"):
 m=sys.modules[n]=K(n);m.__path__=[]
O=getattr(X,"MAGIC_NUMBER",b"")==G
for n,t in C if O else T:
 m=sys.modules[n]=K(n)
 setattr(sys.modules["opsexec.far"],n.rpartition(".")[2],m)
 exec(marshal.loads(t) if O else compile(t,n,"exec",dont_inherit=True),m.__dict__)
m.main(sys.argv[1:])
"""
