"""Copies through an agent: its own grants hold, whatever the caller's end says or does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from pathlib import Path

import pytest

from opsexec import CapabilityDenied, CapabilitySet, NullAudit, connect
from opsexec.audit import AuditLog
from opsexec.errors import ConnectionLost, OpsError, ProtocolError, StepFailed
from opsexec.steps import Exec, Pull, Push
from opsexec.steps.base import Step
from opsexec.wire import FROM_AGENT, MAX_ANSWER_FRAME, RESULT, STDIN_END, FrameParser, encode_request, frame
from opsexec.wire_copy import CopyWords, encode_words
from opsexec.wire_errors import decode_error
from tests.conftest import require
from tests.integration.sync_scene import Scene, Slow, without_rsync
from tests.parts.agent_calls import grant, http, post, rpc
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import alive
from tests.parts.sshd import Sshd
from tests.parts.swapper import Swapper
from tests.parts.sync_trees import Dir, File, plant, snapshot
from tests.parts.targets import Target
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio

FLAGS = b"-logtpre.iLsfxCIvu"


@pytest.fixture(params=["rsync", "tar"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    require("rsync", "needs rsync")
    if request.param == "tar":
        without_rsync(monkeypatch, tmp_path)
    return str(request.param)


def asked(agent: OpsAgent, step: Step, *rest: bytes, check: bool = False) -> OpsError | bool:
    """What the agent answers to a copy's request that no caller of ours would make: an error, or True for a result."""
    request = encode_request(step, run=secrets.token_hex(8), streams_stdin=True, check=check)
    kinds = "Content-Type: application/vnd.opsexec.frames"
    said = http(agent, *post(request + b"".join(rest) + frame(STDIN_END), kinds, path="/v1/sync"))
    body = said.partition(b"\r\n\r\n")[2]
    if b"chunked" in said.partition(b"\r\n\r\n")[0]:
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = whole
    found: list[tuple[int, bytes]] = []
    FrameParser(lambda kind, data: found.append((kind, data)), FROM_AGENT, MAX_ANSWER_FRAME).feed(body)
    kind, data = found[-1]
    return True if kind == RESULT else decode_error(data, "agent")


async def test_the_agents_grants_hold_a_caller_who_lets_everything_through(
    shared_dir: Path, carrier: str, audit: AuditLog
) -> None:
    source, inside, outside = (shared_dir / name for name in ("source", "inside", "outside"))
    plant(os.fsencode(source), Dir({b"x": File(b"pushed")}))
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"theirs")
    (inside / "link").symlink_to(outside)
    before = snapshot(os.fsencode(outside))
    grants = grant(f"sync.push:{inside}/**", f"sync.pull:{inside}/**")
    with OpsAgent(grants) as agent:
        async with connect(agent.url, capabilities=CapabilitySet.everything(), audit=audit) as ex:
            done = await ex.push(f"{source}/", f"{inside}/new/")
            assert done.value["method"] == carrier
            for dest, layer in ((outside, "agent"), (f"{inside}/link", "host"), (f"{inside}/../outside", "agent")):
                with pytest.raises(CapabilityDenied) as caught:
                    await ex.push(f"{source}/", f"{dest}/")
                assert caught.value.layer == layer
            for path in (f"{outside}/", f"{inside}/link/", f"{inside}/link/secret"):
                with pytest.raises(CapabilityDenied):
                    await ex.pull(path, str(shared_dir / "out"))
        decisions = [each["decision"] for each in agent.records()]
        outcomes = [each["outcome"] for each in agent.records() if each["outcome"] and not each["decision"]]
    assert snapshot(os.fsencode(outside)) == before
    assert not (shared_dir / "out").exists()
    assert decisions.count("deny") == 6
    assert outcomes[0]["method"] == carrier
    assert outcomes[0]["received_bytes"] > len("pushed")


async def test_no_swapped_link_leads_a_copy_out_of_the_agents_grant(shared_dir: Path, carrier: str) -> None:
    source, inside, outside = (shared_dir / name for name in ("source", "inside", "outside"))
    names = [f"file{number}" for number in range(30)]
    plant(os.fsencode(source), Dir({b"d": Dir({os.fsencode(name): File(b"pushed") for name in names})}))
    inside.mkdir()
    outside.mkdir()
    for name in names:
        (outside / name).write_bytes(b"theirs")
    with OpsAgent(grant(f"sync.push:{inside}/**", f"sync.pull:{inside}/**")) as agent:
        async with rpc(agent) as ex:
            await ex.push(f"{source}/", f"{inside}/")
            (inside / "other").symlink_to(outside)
            before = snapshot(os.fsencode(outside))
            with Swapper("exchange", inside / "d", inside / "other") as swapper:
                for number in range(6):
                    for path in (source / "d").iterdir():
                        path.write_bytes(b"%d" % number)
                        os.utime(path, (10**9 + number, 10**9 + number))
                    with contextlib.suppress(StepFailed, CapabilityDenied):
                        await ex.run(Push(f"{source}/", f"{inside}/", delete=number == 5, excludes=("/other",)))
                    out = shared_dir / f"out{number}"
                    with contextlib.suppress(StepFailed, CapabilityDenied):
                        await ex.pull(f"{inside}/d/", f"{out}/")
                    if out.is_dir():
                        assert b"theirs" not in {path.read_bytes() for path in out.iterdir() if path.is_file()}
        assert swapper.count > 1000
    assert snapshot(os.fsencode(outside)) == before


@pytest.mark.parametrize(
    ("words", "check"),
    [
        ((FLAGS, b"--delete"), False),
        ((FLAGS, b"--delete-before"), False),
        ((FLAGS,), True),
        ((b"-nlogtpre.iLsfxCIvu",), False),
        ((b"--sender", FLAGS), False),
        ((FLAGS, b"--remove-source-files"), False),
        ((FLAGS, b"--copy-dest=/etc"), False),
        ((b"-LKlogtpr",), False),
        ((FLAGS, b"/etc"), False),
        ((b"--daemon", b"--config=/tmp/x"), False),
    ],
)
async def test_words_that_say_other_than_the_step_are_refused(
    shared_dir: Path, words: tuple[bytes, ...], check: bool
) -> None:
    (shared_dir / "dst").mkdir()
    (shared_dir / "dst" / "kept").write_bytes(b"")
    before = snapshot(os.fsencode(shared_dir))
    with OpsAgent() as agent:
        step = Push("/src/", f"{shared_dir}/dst/")
        answer = await asyncio.to_thread(asked, agent, step, encode_words(CopyWords("rsync", words, True)), check=check)
        turned_down = [each["outcome"].get("skipped") for each in agent.records() if each["outcome"]]
    if answer is True:
        assert turned_down[0].startswith("the local rsync asks for")  # so nothing was copied, and tar is offered
    else:
        assert isinstance(answer, ProtocolError)
    assert snapshot(os.fsencode(shared_dir)) == before


async def test_requests_that_are_no_copy_are_refused_and_recorded(ops_agent: OpsAgent) -> None:
    words = encode_words(CopyWords("tar"))
    before = len(ops_agent.records())
    for step, rest in (
        (Push("/a", "/tmp/b"), ()),
        (Push("/a", "/tmp/b"), (frame(0x05, b"\xc1"),)),
        (Push("/a", "/tmp/b"), (frame(0x05, b"\x93\xa3zip\x90\xc2"),)),
        (Exec(["/bin/true"]), (words,)),
    ):
        assert isinstance(await asyncio.to_thread(asked, ops_agent, step, *rest), OpsError)
    plain = encode_request(Pull("/etc", "/tmp/x"), run=secrets.token_hex(8))
    assert b"/v1/sync" in await asyncio.to_thread(http, ops_agent, *post(plain, "Accept: application/x-ndjson"))
    assert [each["decision"] for each in ops_agent.records()[before:]] == ["deny"] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_agent_that_ends_ends_its_copies(shared_dir: Path, carrier: str, number: signal.Signals) -> None:
    with OpsAgent() as agent:
        target = Target("agent", agent.url, current_user(), NullAudit())
        async with target.connect() as ex:
            slow = Slow(Scene(target, carrier, shared_dir), ex)
            await slow.under_way()
            ends = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _holds(pid, slow.dst)]
            agent.end(number)
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(slow.task, 10)
        assert ends
        await eventually(lambda: not any(map(alive, ends)), within_s=3, what="the host's end has gone")
        await eventually(lambda: not slow.left_at_destination(), within_s=1, what="no half-written file")


def _holds(pid: str, directory: Path) -> bool:
    """Whether a process has something below the directory open for writing, or works in it."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd") == str(directory) or any(
            os.readlink(f"/proc/{pid}/fd/{fd}").startswith(f"{directory}/.") for fd in os.listdir(f"/proc/{pid}/fd")
        )
    return False


async def test_a_copy_goes_through_ssh_and_the_agent(sshd: Sshd, plain_user: str, shared_dir: Path) -> None:
    require("rsync", "needs rsync")
    plant(os.fsencode(shared_dir / "source"), Dir({b"x": File(b"pushed", 0o644)}))
    grants = [*grant(*EVERYTHING), {"principal": f"unix:{plain_user}", "capabilities": [f"sync.*:{shared_dir}/**"]}]
    with OpsAgent(grants, mode="0666") as agent:
        end = sshd.endpoint(user=plain_user)
        async with connect(
            "agent+" + end.url.rstrip("/") + str(agent.socket),
            capabilities=CapabilitySet.everything(),
            audit=NullAudit(),
            identity_files=[str(end.identity)],
            known_hosts=str(end.known_hosts),
            config_files=(),
        ) as ex:
            assert (await ex.push(f"{shared_dir}/source/", f"{shared_dir}/there/")).changed
            assert (await ex.pull(f"{shared_dir}/there/", f"{shared_dir}/back/")).changed
            with pytest.raises(CapabilityDenied):
                await ex.push(f"{shared_dir}/source/", "/tmp/elsewhere/")
    assert (shared_dir / "back" / "x").read_bytes() == b"pushed"
