"""git's own upload-pack and receive-pack on a mirror: bounded processes that know no configuration but ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Literal

from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.hook import Hooks, Push
from bottle.sidecars.git_gate.repository import Repository
from opsexec.far.git_run import Declared, argv, environment, said

Name = Literal["git-upload-pack", "git-receive-pack"]
SERVICES: dict[str, Name] = {"git-upload-pack": "git-upload-pack", "git-receive-pack": "git-receive-pack"}

KEEPALIVE = {"git-upload-pack": "uploadpack.keepAlive", "git-receive-pack": "receive.keepAlive"}

BLOCK = 1 << 16
FINISH_S = 1.0
LEAVE_S = 0.5
"""How long it has once its input has ended, and then once it was told to end."""

PACKS = ("core.packedGitWindowSize=32m", "core.packedGitLimit=512m", "core.deltaBaseCacheLimit=64m", "pack.threads=2")
"""What git holds of packs at once: its own defaults are as large as the address space."""

BOUNDED = 'ulimit -v "$1"; ulimit -t "$2"; ulimit -f "$3"; ulimit -c 0; shift 3; exec "$@"'
UPLOAD = (
    "uploadpack.allowAnySHA1InWant=false",
    "uploadpack.allowFilter=false",
    "uploadpack.allowRefInWant=false",
    "pack.windowMemory=64m",
    *PACKS,
)
RECEIVE = (
    "receive.fsckObjects=true",
    "receive.unpackLimit=1",
    "receive.advertisePushOptions=false",
    "receive.shallowUpdate=false",
    "receive.autogc=false",
    "receive.updateServerInfo=false",
    *PACKS,
)


class Service:
    """One process of git's, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told = False
        assert process.stderr is not None
        self._said = asyncio.create_task(_tail(process.stderr))

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """What it reads the request from."""
        assert self._process.stdin is not None
        return self._process.stdin

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield what it answers."""
        assert self._process.stdout is not None
        while block := await self._process.stdout.read(BLOCK):
            yield block

    async def ended(self) -> tuple[int, str]:
        """Wait for it; returns its status and what it said beside its answer."""
        status = await self._process.wait()
        return status, await self._said

    async def kill(self) -> None:
        """End it and all it started, at once where this is cancelled.

        First by the end of its input, after which it removes a quarantine it has made: a signal keeps it from that.
        """
        try:
            if self._process.returncode is None:
                if not self.stdin.transport.is_closing():
                    self.stdin.transport.abort()
                if not await self._gone(FINISH_S):
                    self._signal(signal.SIGTERM)
                    await self._gone(LEAVE_S)
        finally:
            self._signal(signal.SIGKILL)
            self._told = False
            self._said.cancel()
        await self._process.wait()

    async def _gone(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        """Send it to all there is; what it started may outlive a signal that ended it."""
        if self._process.returncode is None or self._told:
            self._told = True
            with contextlib.suppress(ProcessLookupError):  # all of it has ended, as it was to
                os.killpg(self._process.pid, number)


async def _tail(stream: asyncio.StreamReader) -> str:
    kept = b""
    while block := await stream.read(BLOCK):
        kept = (kept + block)[-BLOCK:]
    return said(kept)


async def start(
    name: Name,
    repository: Repository,
    limits: Limits,
    *,
    hooks: Hooks,
    advertise: bool = False,
    stateless: bool = True,
    push: Push | None = None,
) -> Service:
    """Start a service on a repository's mirror; `advertise`: only its list of refs. `push`: which one, for its hook.

    `stateless`: one request is answered, as over HTTP; else a whole conversation, which begins with the list.
    """
    env = environment(Declared(str(repository.mirror.parent)))
    del env["GIT_DIR"]
    settings = list(UPLOAD if name == "git-upload-pack" else RECEIVE)
    # Where it works without a word it says that it lives; a silence is then a client's.
    settings.append(f"{KEEPALIVE[name]}={max(1, int(limits.idle_s / 3))}")
    if name == "git-receive-pack":
        settings += [f"core.hooksPath={hooks.directory}", f"receive.maxInputSize={limits.body_bytes}"]
        env["GIT_GATE_SOCKET"] = str(hooks.socket)
    if push is not None:
        env["GIT_GATE_PUSH"] = push.token
    words = [word for each in settings for word in ("-c", each)]
    words.append(name.removeprefix("git-"))
    if stateless:
        words.append("--stateless-rpc")
    if name == "git-upload-pack":
        words += ["--strict", f"--timeout={int(limits.idle_s * 2)}"]
    if advertise:
        words.append("--advertise-refs")
    bounds = (str(limits.memory_bytes >> 10), str(limits.cpu_s), str(limits.body_bytes >> 9))
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", BOUNDED, "sh", *bounds),
            *argv(*words, str(repository.mirror)),
            env=env,
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # its client is gone: it may start all the same
        await asyncio.wait([starting])
        if starting.exception() is None:
            await Service(starting.result()).kill()
        raise
    return Service(process)
