"""`bottle doctor`: what this machine has and lacks for each backend, each lack with what mends it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bottle.errors import HostUnready
from bottle.manifest.store import home_root, load_directories
from bottle.preflight import shown
from bottle.runtime import find_runtime, with_git
from bottle.tools import tree, where
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.executor import Executor
from opsexec.steps import PingSocket, SandboxRun

MIN_FREE = 2 << 30
AGENTS = ("claude", "codex")
SYSTEM_DIRS = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `needed`: nothing starts on this backend without it."""

    backend: str
    what: str
    ok: bool
    detail: str
    hint: str | None = None
    needed: bool = True


def doctor(arguments: argparse.Namespace) -> int:
    """Look; returns 0 when the chosen backend has all it needs."""
    found = asyncio.run(_all())
    ready = {name: all(each.ok or not each.needed for each in found if each.backend in (name, "any"))
             for name in ("bwrap", "docker")}  # fmt: skip
    ready["smolmachines"] = False
    if arguments.json:
        print(json.dumps({"ready": ready, "checks": [asdict(each) for each in found]}))
        return 0 if ready[arguments.backend] else 1
    for each in found:
        mark = "ok" if each.ok else "lacks" if each.needed else "note"
        print(f"{each.backend:<7} {mark:<6} {each.what:<28} {shown(each.detail)}")
        if each.hint and not each.ok:
            print(f"{'':<15}hint: {shown(each.hint)}")
    for name, good in ready.items():
        print(f"{name}: {'ready' if good else 'not built' if name == 'smolmachines' else 'not ready'}")
    return 0 if ready[arguments.backend] else 1


async def _all() -> list[Finding]:
    found = [*_any(), *_bwrap()]
    if shutil.which("bwrap", path=_path()):
        found.append(await _sandbox())
    found.append(await _engine())
    return found


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRS}"


def _any() -> Iterator[Finding]:
    try:
        manifests = load_directories(home_root(), Path.cwd())
        detail = f"{len(manifests.agents)} agents, {len(manifests.bottles)} bottles in {home_root()}"
        yield Finding("any", "manifests", True, detail)
        for name in manifests.agents:
            try:
                manifests.load(name)
            except OpsError as error:
                yield Finding("any", f"agent {name}", False, error.message, error.hint, needed=False)
    except OpsError as error:
        yield Finding("any", "manifests", False, error.message, error.hint)
    place = next(each for each in (home_root(), *home_root().parents) if each.exists())
    free = shutil.disk_usage(place).free
    hint = "make room, or set BOT_BOTTLE_ROOT to a place with more"
    yield Finding("any", "room for homes", free >= MIN_FREE, f"{free >> 30} GiB free at {place}", hint, needed=False)
    rsync = shutil.which("rsync", path=_path())
    hint = "apt-get install rsync: --cwd copies faster with it"
    yield Finding("any", "rsync", rsync is not None, rsync or "none", hint, needed=False)
    try:
        runtime = find_runtime()
        yield Finding("any", "the egress gate's environment", True, runtime.python)
        try:
            git = with_git(runtime).git
            yield Finding("any", "gitleaks", True, git.gitleaks if git else "", needed=False)
        except HostUnready as error:
            yield Finding("any", "gitleaks", False, error.message, error.hint, needed=False)
    except HostUnready as error:
        yield Finding("any", "the egress gate's environment", False, error.message, error.hint)


def _bwrap() -> Iterator[Finding]:
    found = shutil.which("bwrap", path=_path())
    yield Finding("bwrap", "bubblewrap", found is not None, found or "none", "apt-get install bubblewrap")
    there = Path("/usr/bin/python3").exists()
    detail = "/usr/bin/python3" if there else "none"
    yield Finding("bwrap", "the system's Python", there, detail, "apt-get install python3-minimal")
    trust = Path("/etc/ssl/certs/ca-certificates.crt")
    detail = str(trust) if trust.exists() else "no authorities to trust upstreams by"
    yield Finding("bwrap", "ca-certificates", trust.exists(), detail, "apt-get install ca-certificates", needed=False)
    for program in AGENTS:
        try:
            place, detail = where(program), "none for the provider of that name"
            hint = f"scripts/agents.sh {tree()} puts it there"
            yield Finding("bwrap", program, place is not None, place or detail, hint, needed=False)
        except HostUnready as error:
            yield Finding("bwrap", program, False, error.message, error.hint, needed=False)


async def _sandbox() -> Finding:
    """Start the smallest sandbox there is: only that tells whether this kernel lets this user."""
    from opsexec.audit import NullAudit
    from opsexec.local import LocalExec

    step = SandboxRun("doctor", ["/usr/bin/python3", "-c", "pass"], read_only={"/usr": "/usr/"},
                      links={"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}, timeout_s=20.0)  # fmt: skip
    granted = CapabilitySet.of("sandbox.run:doctor", "fs.read:/usr/**")
    async with LocalExec(capabilities=granted, audit=NullAudit()) as ex:
        try:
            await ex.run(step)
        except OpsError as error:
            hint = "user namespaces may be off: sysctl kernel.unprivileged_userns_clone, AppArmor's profile of bwrap"
            return Finding("bwrap", "a sandbox", False, error.message, error.hint or hint)
    return Finding("bwrap", "a sandbox", True, "one was started")


async def _engine() -> Finding:
    from opsexec.audit import NullAudit
    from opsexec.local import LocalExec

    named = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    hint = "apt-get install docker.io, and start dockerd"
    if not named.startswith("unix:///"):
        return Finding("docker", "an engine", False, f"DOCKER_HOST is {named}", "only a unix socket is used")
    path = named.removeprefix("unix://")
    granted = CapabilitySet.of(f"fs.read:{path}", f"fs.read:{os.path.realpath(path)}", "container.read:podman")
    async with LocalExec(capabilities=granted, audit=NullAudit()) as ex:
        return await _pinged(ex, path, hint)


async def _pinged(ex: Executor, path: str, hint: str) -> Finding:
    try:
        value = (await ex.run(PingSocket(path=os.path.realpath(path)))).value
    except OpsError as error:
        return Finding("docker", "an engine", False, error.message, error.hint or hint)
    return Finding("docker", "an engine", value["state"] == "ok", f"{path}: {value['state']}", hint)
