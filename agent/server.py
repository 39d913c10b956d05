"""The agent as a process: its state directory, its listeners, its signals, its end."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import socket
import stat
import traceback
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import told_early
from agent.address import Address
from agent.ceiling import Ceiling
from agent.config_child import ConfigCheck
from agent.connection import Gate
from agent.desk import Desk
from agent.detached import Detached
from agent.door import Door
from agent.enduring_pool import EnduringPool
from agent.errors import AgentUnable
from agent.events.hub import Hub, TellingAudit
from agent.heads import HeadSigner, open_signer
from agent.identity import Identity
from agent.notify import beat, notify, reloading
from agent.principal import BOTTLE
from agent.priority import go_ahead
from agent.run_store import RunStore
from agent.say import say
from agent.tailnet import Tailnet
from agent.tailnet_door import TailnetDoor
from agent.tty.recovery import settle_cut, settle_cut_later
from agent.unix_listener import BACKLOG, bind_unix
from opsexec.audit import AuditLog
from opsexec.errors import AuditUnavailable, ConnectionLost, OpsError

if TYPE_CHECKING:
    from agent.config import Config

STOP_S = 10.0
"""Seconds the runs that are under way get to end once the agent is told to stop."""


async def serve(file: Path, check: ConfigCheck) -> None:
    """Serve until SIGTERM or SIGINT; raises BadConfig or AgentUnable before the first listener is open."""
    config = check.result()
    go_ahead(config.agent.nice)
    asyncio.get_running_loop().set_default_executor(EnduringPool())
    with ExitStack() as held:
        state = open_state(config, held)
        audit = held.enter_context(AuditLog.open(state / "audit.jsonl"))
        told = TellingAudit(audit, events := Hub())
        detached = Detached(RunStore(state / "runs"), told, config.agent.name, config.limits)
        about = config.audit
        signer = open_signer(audit, config.agent.name, about.host_key, about.sign_every_s) if about.sign else None
        agent = Agent(file, Desk(config, told, detached, events), signer)
        try:
            await agent.run()
        finally:
            await agent.desk.host.aclose()
            if signer is not None:
                await signer.sign()


def open_state(config: Config, held: ExitStack) -> Path:
    """Make and lock the state directory; raises AgentUnable when it isn't ours alone or another agent has it."""
    state = Path(config.agent.state_dir)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state.lstat()
    except OSError as error:
        raise AgentUnable(f"can't make {state}: {error.strerror}", hint="name another state_dir") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise AgentUnable(f"{state} is not this user's own directory", hint=f"chown it, and chmod go-w {state}")
    for above in {*state.parents, *state.resolve().parents}:
        _require_steady(above, state)
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AgentUnable(f"another agent holds {state}", hint="stop it, or give this one its own state_dir") from error
    return state


def _require_steady(above: Path, state: Path) -> None:
    """Raise AgentUnable where another user could put something else in the place of what leads to `state`.

    A sticky directory like /tmp is fine, and so is a link there of root's or this user's own.
    """
    for status in (above.lstat(), above.stat()):
        others_write = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or (others_write and not stat.S_ISLNK(status.st_mode)):
            text = f"{above}, above {state}, is another user's or writable for all"
            raise AgentUnable(text, hint="name a state_dir that nobody else can move")


class Agent:
    """One agent from its first listener to its last answer."""

    def __init__(self, file: Path, desk: Desk, signer: HeadSigner | None = None) -> None:
        self._reloading: asyncio.Task[None] | None = None
        self._serving = False
        self._outdated = False
        self._failed = ""
        self._file = file
        self._signer = signer
        self.desk = desk
        door = Door(desk)
        self._gate = Gate(door.handle, door.fault, door.revoked, door.knows, desk.config.limits)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Listen, say so, serve until told to stop, and end in order."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        sockets: list[tuple[socket.socket, str, os.stat_result]] = []
        servers: list[asyncio.Server] = []
        tailnets: list[TailnetDoor] = []
        agent = self.desk.config.agent
        background = [asyncio.create_task(each) for each in (self.desk.detached.attend(), beat())]
        background.append(asyncio.create_task(self.desk.schedules.attend()))
        background.append(asyncio.create_task(self.desk.audit.attend()))
        if self._signer is not None:
            background.append(asyncio.create_task(self._signer.attend()))
        for task in background:
            task.add_done_callback(self._part_ended)
        try:
            taken_up = self.desk.detached.recover(self.desk.audit_path)
            cut = self.desk.terminals.recordings.unfinished()
            try:
                settle_cut(self.desk, cut)
            except AuditUnavailable as error:  # no reason to stay away: it has none for who asks, either
                say(f"terminals that were cut off are recorded later: {error}")
                background.append(asyncio.create_task(settle_cut_later(self.desk, cut)))
                background[-1].add_done_callback(self._part_ended)
            kept = self.desk.schedules.recover()
            for address in agent.addresses:
                if address.proves == "tailnet":
                    tailnet = Tailnet(self.desk.config.tailnet, address.port)
                    door = TailnetDoor(tailnet, partial(self._listen_tcp, address.text, tailnet), say)
                    tailnets.append(door)
                    await door.open()
                    background.append(asyncio.create_task(door.attend()))
                    background[-1].add_done_callback(self._part_ended)
                    continue
                private = address.proves == "bottle"
                listener = bind_unix(address.path, int(agent.socket_mode, 8), agent.socket_group, private=private)
                sockets.append((listener, address.path, os.lstat(address.path)))
                servers.append(await self._listen(listener, address))
            count = len(self.desk.config.grants)
            more = f", {kept} schedules" if kept else ""
            more += f", {taken_up} detached runs taken up" if taken_up else ""
            gc.collect()
            gc.freeze()  # what is loaded by now stays: looking through it again and again costs a step 5 % of its time
            say(f"serving {count} grants on {', '.join(agent.listen)}{more}")
            notify("READY=1", f"STATUS=serving {count} grants")
            self._serving = True
            if told_early.taken() or self._outdated:  # its config may have changed since it was read
                self.reload()
            await self._stop.wait()
            notify("STOPPING=1")
        finally:
            for _, path, made in sockets:
                _unlink_own(path, made)
            for server in servers:
                server.close()
            for door in tailnets:
                door.close()
            for listener, _, _ in sockets:
                listener.close()
            await self._end_runs()
            if self._reloading is not None:
                background.append(self._reloading)
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            self.desk.audit.flush()
        if self._failed:
            hint = "start it again, and report this"
            raise AgentUnable(f"a part of the agent failed ({self._failed}), and it ended for that", hint=hint)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        """A part that fails in a way nobody foresaw ends the agent: runs or schedules would go unattended, unseen."""
        if task.cancelled() or self._stop.is_set() or (error := task.exception()) is None:
            return
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        at = traceback.extract_tb(error.__traceback__)[-1]  # its text may hold what a step holds
        self._failed = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
        self._stop.set()

    async def _listen(self, listener: socket.socket, address: Address) -> asyncio.Server:
        loop = asyncio.get_running_loop()  # it would listen again, with a backlog of 100
        bottle = Identity(f"{BOTTLE}{address.identity}") if address.proves == "bottle" else None
        return await loop.create_unix_server(
            lambda: self._gate.protocol(address.text, socket_is=bottle), sock=listener, backlog=BACKLOG
        )

    async def _listen_tcp(self, text: str, tailnet: Tailnet, listener: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: self._gate.protocol(text, tailnet.prove), sock=listener, backlog=BACKLOG
        )

    async def _end_runs(self) -> None:
        """End what runs for connected callers, telling them why; runs that were started to live on do."""
        for active in list(self.desk.active.values()):
            active.end(ConnectionLost("the agent was stopped, and with it this run", hint="look, then resume"))
        self._gate.server.pre_shutdown()
        self._gate.drop_unread()
        await self._gate.server.shutdown(STOP_S)
        await self._gate.aclose()

    def reload(self) -> None:
        """Read the config again, and once more when told to meanwhile; before it serves, as soon as it does."""
        self._outdated = True
        if not self._serving:
            return
        notify(reloading())
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_all())

    async def _reload_all(self) -> None:
        while self._outdated:
            self._outdated = False
            await self._reload()

    async def _reload(self) -> None:
        """Take the config as it is now; what is wrong with it is said, and the old one stays as it is."""
        try:
            config = await asyncio.to_thread(ConfigCheck.start(self._file).result)
            self._require_same_place(config)
            self.desk.allow_self({"type": "agent.reload"}, f"{len(config.grants)} grants")
        except OpsError as error:
            say(f"not reloaded, the old configuration stays: {error}")
            notify("READY=1", f"STATUS=not reloaded: {error}"[:500].replace("\n", " "))
            return
        self.desk.config = config
        self.desk.ceiling = Ceiling(config)
        self._gate.limits = config.limits
        self.desk.detached.limits = config.limits
        ended = self.desk.judge_again()
        more = f", {ended} runs ended that they don't admit" if ended else ""
        say(f"reloaded: {len(config.grants)} grants{more}")
        notify("READY=1", f"STATUS=serving {len(config.grants)} grants")

    def _require_same_place(self, config: Config) -> None:
        old = self.desk.config
        for table in ("agent", "audit", "tailnet"):
            if getattr(config, table) != getattr(old, table):
                raise AgentUnable(f"[{table}] has changed, which takes a restart", hint="restart ops-agent")


def _unlink_own(path: str, made: os.stat_result) -> None:
    """Remove a socket while it is listened on; another agent's, in the place of one that somebody removed, stays."""
    try:
        if os.path.samestat(os.lstat(path), made):
            os.unlink(path)
    except FileNotFoundError:
        return
