"""A host that attacks its caller in a copy: what it lists, reports and sends is refused or bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Pull, Push, RunOutput
from opsexec.errors import OpsError, ProtocolError
from opsexec.far import copy_pipe
from tests.integration.conftest import require_root
from tests.parts.hostile_host import HostileHost, hostile_host
from tests.parts.sshd import Sshd
from tests.parts.targets import Target, over_ssh

pytestmark = pytest.mark.anyio

TAR_END = f"""
say(nonce)
(size,) = struct.unpack(">I", read(4))
request = read(size)
def answer(*items):
    data = message(*items)
    say(struct.pack(">I", len(data)) + data)
if "rsync_serve" in stage:
    answer(b"failed", b"take_tar", b"no rsync here")
    time.sleep(60)
USERS, GROUPS, ENTRIES, LISTED, WANTED, ALIVE, PROBLEM, SKIPPED, CHANGES, TOTAL, FAILURE, DONE = range(
    {copy_pipe.USERS}, {copy_pipe.DONE + 1}
)
def piece(kind, payload=b""): say(struct.pack(">BI", kind, len(payload)) + payload)
def entry(name, kind=1, mode=0o644, uid=0, gid=0, size=0, mtime=10**18, target=b""):
    head = struct.pack(">BHIIQqHH", kind, mode, uid, gid, size, mtime, len(name), len(target))
    return head + name + target
answer(b"ok")
"""
"""A host's end of a tar stream: it asks for that in the place of rsync, and says what the test wants."""


@pytest.fixture(scope="module")
def villain() -> Iterator[HostileHost]:
    require_root()
    with hostile_host() as host:
        yield host


@pytest.fixture
def hostile(sshd: Sshd, villain: HostileHost, audit) -> Target:
    return over_ssh("hostile", sshd.endpoint(user=villain.user), audit)


async def outcome(target: Target, step: Pull | Push) -> RunOutput | OpsError:
    async with asyncio.timeout(40), target.connect() as ex:
        try:
            return await ex.run(step)
        except OpsError as error:
            return error


NONSENSE_OF_A_RECEIVER = {
    "a count of four megabytes": "piece(TOTAL, b'\\xff' * (4 << 20)); piece(WANTED); piece(DONE)",
    "changes that are no message": "piece(CHANGES, b'\\xff' * 9); piece(WANTED); piece(DONE)",
    "a problem behind the files": "piece(WANTED); piece(PROBLEM, b'x'); piece(DONE)",
    "a list of its own": "piece(ENTRIES, entry(b'x'))",
    "half a place": "piece(WANTED, b'xxx')",
    "a place of no entry": "piece(WANTED, b'xxxx')",
    "a failure without a reason": "piece(FAILURE, message())",
}
NONSENSE_OF_A_SENDER = {
    "an owner without a name": "piece(USERS, message(b'1'))",
    "an owner of no number": "piece(USERS, message(b'x', b'y'))",
    "a name no owner can have": (
        "piece(USERS, message(b'7', b'a\\0b')); piece(ENTRIES, entry(b'.', 2, uid=7)); piece(LISTED); say(bytes(1024))"
    ),
    "a problem that is no message": "piece(PROBLEM, b'xxx')",
    "a failure without a reason": "piece(FAILURE, message())",
}


@pytest.mark.parametrize("attack", NONSENSE_OF_A_RECEIVER)
async def test_what_a_push_is_told_without_sense_is_the_hosts_protocol_error(hostile, villain, tmp_path: Path, attack):
    (tmp_path / "f").touch()
    villain.does(TAR_END + NONSENSE_OF_A_RECEIVER[attack])
    error = await outcome(hostile, Push(f"{tmp_path}/", "/srv/a"))
    assert isinstance(error, ProtocolError), error
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("attack", NONSENSE_OF_A_SENDER)
async def test_what_a_pull_is_told_without_sense_is_the_hosts_protocol_error(hostile, villain, tmp_path: Path, attack):
    villain.does(TAR_END + NONSENSE_OF_A_SENDER[attack])
    error = await outcome(hostile, Pull("/srv/a/", f"{tmp_path}/"))
    assert isinstance(error, ProtocolError), error


async def test_a_host_does_not_replace_what_a_pull_excludes(hostile, villain, tmp_path: Path):
    """It lists it all the same, as a file, below a directory, or as a link in the place of one."""
    for name in ("keep", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "keep" / "a.key").write_text("mine")
    for listed in ("entry(b'keep', 2) + entry(b'keep/a.key', 3, target=b'x')", "entry(b'etc', 3, target=b'keep')"):
        villain.does(TAR_END + f"piece(ENTRIES, entry(b'.', 2) + {listed}); piece(LISTED); say(bytes(1024))\n")
        error = await outcome(hostile, Pull("/srv/a/", f"{tmp_path}/", delete=True, excludes=("*.key", "/etc")))
        assert isinstance(error, ProtocolError), error
        assert "excluded" in str(error)
        assert (tmp_path / "keep" / "a.key").read_text() == "mine"
        assert (tmp_path / "etc").is_dir()
        assert not (tmp_path / "etc").is_symlink()
