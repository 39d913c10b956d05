"""What goes wrong beside a bottle's end, or beside what a person asked for: told, and no more than it is."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import json
import os
import pwd
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bottle import attended as attending_to
from bottle import credentials, launch, restarting, starting
from bottle.cli import main
from bottle.commands.workspace import write_whole
from bottle.errors import BadManifest, CredentialMissing
from bottle.host_keys import HostKeys
from bottle.leftovers import identity_of
from bottle.manifest.store import home_root, load_object
from bottle.operator.attending import attending
from bottle.operator.deciding import reject
from bottle.operator.queue import Queue, QueueUnreadable
from bottle.operator.shown import show
from bottle.plan import BottlePlan, Intent, make_plan
from bottle.providers.base import HostFacts
from bottle.state import Metadata, State
from bottle.workspace import apply as applying
from bottle.workspace.changes import Change, Compared
from bottle.workspace.copy_in import look
from bottle.workspace.review import Review
from bottle.workspace.tree import Entry
from opsexec.audit import AuditLog
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.local import LocalExec
from tests.parts.attendants import POLICY, Kept, ask, attended
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.waiting import eventually

IDENTITY = "worker-00000001"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    root = HomeRoot(tmp_path / "home")
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(root.path))
    monkeypatch.chdir(tmp_path)
    found = State(root.path)
    found.make(Metadata(IDENTITY, "worker", "/", False, 1.0, "bwrap", phase="running"))
    return found


def plan(**bottle: object) -> BottlePlan:
    manifest = {"bottles": {"dev": bottle}, "agents": {"worker": {"bottle": "dev", "prompt": ""}}}
    return make_plan(load_object(manifest).load("worker"), Intent(IDENTITY, arguments=("true",)))


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process's grows any more (setrlimit(2), RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_end_of_a_bottle_is_told_and_it_is_there_to_be_resumed(
    state: State,
) -> None:
    loaded = load_object({"bottles": {"dev": {}}, "agents": {"worker": {"bottle": "dev"}}}).load("worker")
    ended = dataclasses.replace(state.read(IDENTITY), phase="stopped")
    said: list[str] = []
    with no_room():
        starting._keep(state, ended, loaded, said.append)
    assert "File too large" in said[-1]
    assert state.read(IDENTITY).phase == "running"
    starting._keep(state, ended, loaded, said.append)
    assert state.read(IDENTITY).phase == "stopped"


def test_without_room_for_a_bottle_s_metadata_the_error_names_the_file(state: State) -> None:
    with no_room(), pytest.raises(OSError, match="File too large") as caught:
        state.write(state.read(IDENTITY))
    assert caught.value.filename == str(state.directory(IDENTITY) / "metadata.json")


@pytest.mark.anyio
async def test_without_room_what_waits_at_the_end_takes_no_status_along(tmp_path: Path) -> None:
    said: list[str] = []
    with ExitStack() as until_it_is_over:
        async with attending(plan(supervise=True), tmp_path, credentials.Credentials(), Kept(), said.append) as made:
            assert made is not None
            ask(made, "new.test")
            until_it_is_over.enter_context(no_room())
    assert "isn't marked as void" in said[-1]


@pytest.mark.anyio
async def test_a_run_that_failed_beside_another_one_is_told_of_by_nobody_else() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def fails() -> None:
        raise OSError("no")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await launch._end(task)
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.anyio
async def test_steps_beside_one_another_are_ended_once_and_each_ends_as_it_should() -> None:
    """One that makes a network takes it away again when it is ended: ended twice, it left the network there."""
    never, ended = asyncio.Event(), []

    async def at_once() -> None:
        await never.wait()

    async def with_care() -> None:
        try:
            await never.wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            ended.append("with care")

    both = asyncio.create_task(launch._side_by_side(at_once(), with_care()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert ended == ["with care"]


@pytest.mark.anyio
async def test_a_second_ctrl_c_breaks_off_nothing_and_is_answered() -> None:
    said: list[str] = []
    asked = asyncio.Event()

    async def whole() -> None:
        stopped = attending_to._end_on_signals(IDENTITY, said.append)
        try:
            asked.set()
            await asyncio.Event().wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            await eventually(lambda: len(stopped) == 3, within_s=10, what="all three have come")

    try:
        bottle = asyncio.create_task(whole())
        await asyncio.wait_for(asked.wait(), 10)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await bottle
        assert bottle.cancelling() == 1
    finally:
        for number in attending_to.SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
    (line,) = said
    assert IDENTITY in line
    assert "is ending" in line


def test_segments_of_an_audit_are_shown_in_their_order_whatever_the_clock_said(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = state.directory(IDENTITY)
    with AuditLog.open(directory / "audit.jsonl", max_bytes=1000) as audit:
        for at in range(10):
            audit.append({"host": IDENTITY, "decision": "deny", "reason": str(at)})
    closed = sorted(directory.glob("audit.jsonl.*"))
    assert len(closed) > 2
    for at, path in enumerate(closed):
        os.utime(path, (1000 - at, 1000 - at))
    assert main(["audit", IDENTITY, "--refused", "--json"]) == 0
    shown = [record["reason"] for record in json.loads(capsys.readouterr().out)["records"]]
    assert shown == [str(at) for at in range(10)]


def test_the_last_of_an_audit_are_shown_alone(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    with AuditLog.open(state.directory(IDENTITY) / "audit.jsonl") as audit:
        for at in range(10):
            audit.append({"host": IDENTITY, "decision": "deny" if at % 2 else "allow", "reason": str(at)})
    for words, reasons in ((["--last", "3"], "789"), (["--last", "2", "--refused"], "79"), (["--last", "0"], "")):
        assert main(["audit", IDENTITY, "--json", *words]) == 0
        told = json.loads(capsys.readouterr().out)
        assert ("".join(each["reason"] for each in told["records"]), told["whole"]) == (reasons, True)


@pytest.mark.anyio
async def test_a_daemon_that_ends_after_its_restart_was_given_up_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "READY_S", 0.01)
    said: list[str] = []
    daemons = restarting.Restarting(IDENTITY, said.append)
    daemons.watch({"egress"})
    with pytest.raises(OpsError, match="didn't come up again"):
        await daemons.restart("egress")
    daemons.heard({"event": "ended", "daemon": "egress"})
    assert "egress ended by itself" in said[0]


class LastWord(State):
    """A state whose launcher takes a decision, carries it out, and ends, as soon as somebody looks."""

    def alive(self, identity: str) -> bool:
        queue = Queue(self.directory(identity))
        for decision in queue.claim():
            queue.conclude(decision, True, "done")
        return False


def test_the_last_word_of_a_launcher_is_heard(state: State) -> None:
    attendant, _ = attended(state.directory(IDENTITY))
    shown = show(IDENTITY, ask(attendant, "new.test"), POLICY)
    assert reject(LastWord(state.root.parent), shown, "no") == "done"


@pytest.mark.parametrize("after", [False, True])
def test_a_decision_that_is_broken_off_as_it_is_handed_over_is_none(
    state: State, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Ctrl-C just before the launcher can see it, and just after."""
    attendant, _ = attended(state.directory(IDENTITY))
    shown = show(IDENTITY, ask(attendant, "new.test"), POLICY)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if after:
            rename(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reject(state, shown, "no")
    assert list((state.directory(IDENTITY) / "supervise" / "decisions").iterdir()) == []


def test_an_approval_on_a_read_only_disk_says_so_with_its_hint(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    attendant, _ = attended(state.directory(IDENTITY))
    shown = show(IDENTITY, ask(attendant, "new.test"), POLICY)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(Path, "unlink", refused)  # the kernel says EROFS also where no file is
    with pytest.raises(QueueUnreadable, match="Read-only file system") as told:
        reject(state, shown, "no")
    assert told.value.hint


@pytest.mark.anyio
async def test_nothing_is_applied_to_a_directory_that_was_not_seen_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr(applying, "MAX_ENTRIES", 1)
    changes = [Change(name, None, Entry(name, "file", 0o644, 6)) for name in ("a", "b", "c", "d")]
    found = Review(Compared(changes=changes[-1:]), contents={"d": b"theirs"})
    async with LocalExec(capabilities=CapabilitySet.of(*applying.needs(str(tmp_path)))) as ex:
        with pytest.raises(applying.Conflict, match="not all of"):
            await applying.apply(ex, str(tmp_path), found)
    assert (tmp_path / "d").read_text() == "mine"


@pytest.mark.anyio
async def test_what_was_applied_in_part_is_told_as_such(tmp_path: Path) -> None:
    changes = [Change(name, None, Entry(name, "file", 0o644, 6)) for name in ("a", "b")]
    found = Review(Compared(changes=changes), contents={"a": b"theirs", "b": b"theirs"})
    granted = [f"fs.read:{tmp_path}", f"fs.read:{tmp_path}/**", f"fs.write:{tmp_path}", f"fs.write:{tmp_path}/a"]
    async with LocalExec(capabilities=CapabilitySet.of(*granted)) as ex:
        with pytest.raises(applying.HalfApplied, match="some of the changes and not all"):
            await applying.apply(ex, str(tmp_path), found)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("named", "found"), [(IDENTITY, IDENTITY), ("../x", ""), ("", ""), (f"{IDENTITY}\n", "")])
def test_a_label_that_names_no_bottle_keeps_no_cleanup_from_the_others(named: str, found: str) -> None:
    assert identity_of({"labels": {"bottle.identity": named}}) == found


def test_half_a_patch_is_left_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.patch"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with no_room(), pytest.raises(OSError, match="File too large"):
        write_whole(fd, path, b"x" * 100_000)
    assert not path.exists()


@pytest.mark.anyio
async def test_a_fifo_in_a_directory_keeps_no_launch_waiting(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "config")
    async with LocalExec(capabilities=CapabilitySet.of(f"fs.read:{tmp_path}", f"fs.read:{tmp_path}/**")) as ex:
        async with asyncio.timeout(60):
            assert (await look(ex, str(tmp_path), "/nowhere")).count == 2


def test_the_home_of_somebody_who_isn_t_is_a_sentence(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    repository = {"url": "ssh://git@host.test/site", "identity": "~nobody-of-that-name/key", "host_key": "k"}
    made = plan(**{"git-gate": {"repos": {"site": repository}}})
    made = dataclasses.replace(made, host_keys={"site": HostKeys(("ssh-ed25519 AAAA",))})
    with pytest.raises(CredentialMissing, match="is no absolute path"):
        credentials.gather(made, HostFacts(), str, {})
    root = HomeRoot(home_root())
    root.bottle("dev", "agent_provider: {template: command, dockerfile: ~nobody-of-that-name/Dockerfile}\n")
    root.agent("worker", "bottle: dev\n")
    assert main(["info", "worker", "--backend", "docker"]) == 2
    assert "~nobody-of-that-name/Dockerfile" in capsys.readouterr().err


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "BOT_BOTTLE_ROOT"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(BadManifest, match="no home directory") as told:
        home_root()
    assert told.value.hint == "set BOT_BOTTLE_ROOT, or HOME"
