"""The mirrors' pre-receive hook, and the gate's end of it: a push waits there until it is scanned and forwarded."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bottle.sidecars.git_gate.ahead import Ahead
from bottle.sidecars.git_gate.repository import Refusal, Repository
from bottle.sidecars.git_gate.said import say
from opsexec.errors import OpsError

MAX_CALL = 1 << 20
CALL_S = 30.0

SCRIPT = """#!/usr/bin/python3 -IS
import os, socket, sys
try:
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["GIT_GATE_SOCKET"])
    place = os.environ.get("GIT_QUARANTINE_PATH", "").encode()
    line.sendall(os.environ["GIT_GATE_PUSH"].encode() + b"\\n" + place + b"\\n" + sys.stdin.buffer.read())
    line.shutdown(socket.SHUT_WR)
    said = b""
    while True:
        block = line.recv(65536)
        if not block:
            break
        said += block
except (OSError, KeyError):
    said = b""
sys.stderr.buffer.write(said[1:] if said else b"git gate: refused: the gate is down, so nothing passes\\n")
sys.exit(0 if said[:1] == b"0" else 1)
"""


@dataclass
class Push:
    """One push on its way. `forward`: the step that is to send it on, logging in meanwhile. `judging`: its scan."""

    repository: Repository
    forward: Ahead | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    asked: bool = False
    judging: asyncio.Task[None] | None = None
    accepted: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Hooks:
    """Listens where the hooks call. Nobody but the gate's own user reaches that socket."""

    def __init__(self, bottle: str, directory: Path) -> None:
        self._bottle = bottle
        self.directory = directory / "hooks"
        self.socket = directory / "hook.sock"
        self._pushes: dict[str, Push] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Write the hook and listen."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        script = self.directory / "pre-receive"
        script.write_text(SCRIPT, "ascii")
        script.chmod(0o700)
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._called, path=self.socket)
        os.chmod(self.socket, 0o600)

    async def aclose(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    @asynccontextmanager
    async def expected(
        self, repository: Repository, updates: tuple[str, ...], slots: asyncio.Semaphore
    ) -> AsyncIterator[Push]:
        """Wait for the push's turn and for one of the gate's slots, then expect its hook until its git has ended."""
        await repository.take_turn()
        judging: asyncio.Task[None] | None = None
        try:
            async with slots:
                push = Push(repository, repository.announce(updates))
                self._pushes[push.token] = push
                try:
                    yield push
                finally:
                    del self._pushes[push.token]
                    repository.over(push.forward)
                    push.over.set()
                    judging = push.judging
        finally:
            if judging is None or judging.done():
                repository.end_turn()
            else:  # a push whose client has left may be on its way to the upstream still
                judging.add_done_callback(lambda _: repository.end_turn())

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(CALL_S):
                    call = await reader.read(MAX_CALL)
                    while block := await reader.read(MAX_CALL):
                        call += block
                        if len(call) > MAX_CALL:
                            return
            except TimeoutError:
                return
            token, _, rest = call.partition(b"\n")
            push = self._pushes.get(token.decode("ascii", "replace"))
            if push is None or push.asked:
                return
            push.asked = True
            push.judging = asyncio.current_task()
            await self._judge(push, rest, writer)
        finally:
            writer.close()

    async def _judge(self, push: Push, rest: bytes, writer: asyncio.StreamWriter) -> None:
        """Scan and forward, answer, and hold the mirror until git has set its refs."""
        place, _, lines = rest.partition(b"\n")
        name = push.repository.name
        try:
            updates = tuple(lines.decode("utf-8").splitlines())
            async with push.repository.alone():
                verdict = await push.repository.accept(place.decode("utf-8"), updates, push.forward)
                push.accepted = True
                counts = {key: verdict.get(key) for key in ("objects", "bytes")}
                say(
                    decided(
                        self._bottle,
                        name,
                        "push",
                        None,
                        {"refs": [update.split(" ", 2)[2][:200] for update in updates[:50]], **counts},
                    )
                )
                writer.write(b"0git gate: scanned and forwarded\n")
                await writer.drain()
                writer.close()
                await push.over.wait()
        except UnicodeDecodeError:
            self._refuse(name, "a ref's name is no UTF-8", writer)
        except Refusal as refusal:
            self._refuse(name, str(refusal), writer)
        except OpsError as error:
            self._refuse(name, error.message, writer)

    def _refuse(self, name: str, why: str, writer: asyncio.StreamWriter) -> None:
        say(decided(self._bottle, name, "push", why))
        writer.write(b"1" + worded(why))


def worded(why: str) -> bytes:
    """Return a refusal as a person reads it behind `remote: `: printable lines, each marked as the gate's."""
    lines = ["".join(each if each.isprintable() else "?" for each in line)[:400] for line in why.splitlines()[:40]]
    return "".join(f"git gate: refused: {line}\n" for line in lines or ["no reason"]).encode()


def decided(
    bottle: str, repository: str, action: str, why: str | None, more: dict[str, object] | None = None
) -> dict[str, object]:
    """Return a decision as the audit takes it; `why`: of a denial."""
    decision = "allow" if why is None else "deny"
    event = {"event": "git", "bottle": bottle, "repository": repository, "action": action, "decision": decision}
    return {**event, "reason": (why or "declared")[:2000], **(more or {})}
