"""A step as another user: runuser for root, sudo -n for everyone else, and a typed refusal where sudo asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import Iterator

import pytest

from opsexec import CapabilityDenied, Exec, OpsError, Shell, StepTimeout
from opsexec.errors import ConnectionLost, PrivilegeDenied
from tests.conftest import require
from tests.parts.process_tree import alive, processes_with_argument
from tests.parts.sudoers import sudo_rule
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
ROOTS = pytest.mark.parametrize("way", ["local", "ssh_root"])


@pytest.fixture
def sudoer(ssh_user: Target) -> Iterator[Target]:
    """The plain user, who may now run anything as anybody without a password."""
    require("sudo", "needs sudo (apt-get install sudo)")
    with sudo_rule(f"{ssh_user.login} ALL=(ALL) NOPASSWD: ALL"):
        yield ssh_user


@pytest.fixture
def asked(ssh_user: Target) -> Iterator[Target]:
    """The plain user, whom sudo would ask for a password."""
    require("sudo", "needs sudo (apt-get install sudo)")
    with sudo_rule(f"{ssh_user.login} ALL=(ALL) PASSWD: ALL"):
        yield ssh_user


async def expect_to_become(target: Target, user: str) -> None:
    """Everything that makes a process another user's, and nothing of the login left."""
    entry = pwd.getpwnam(user)
    script = "id -un; id -Gn; echo $HOME; echo $USER; echo $LOGNAME; pwd; cat; ps -o user= -p $$"
    async with target.connect() as ex:
        step = Shell(action="t", script=script, run_as=user, stdin="given\n", env={"MINE": "1"})
        said = (await ex.run(step)).text.splitlines()
        groups = {os.getgrouplist(user, entry.pw_gid)[0]}
        assert said[0] == user
        assert len(said[1].split()) >= len(groups)
        assert "root" not in said[1].split() or user == "root"
        assert said[2:5] == [entry.pw_dir, user, user]
        assert said[5] == (entry.pw_dir if os.path.isdir(entry.pw_dir) else "/")
        assert said[6] == "given"
        assert said[7].split()[0] in (user, user[:7] + "+")
        assert (await ex.run(Exec(argv=("id", "-un")))).text.strip() == target.login


@ROOTS
async def test_root_becomes_another_user(way: str, request: pytest.FixtureRequest, plain_user: str) -> None:
    await expect_to_become(request.getfixturevalue(way), plain_user)


@ROOTS
async def test_root_becomes_a_user_without_home_or_shell(way: str, request: pytest.FixtureRequest) -> None:
    await expect_to_become(request.getfixturevalue(way), "nobody")


async def test_a_plain_user_becomes_root_through_sudo(sudoer: Target) -> None:
    await expect_to_become(sudoer, "root")


async def test_a_plain_user_becomes_another_one_through_sudo(sudoer: Target) -> None:
    await expect_to_become(sudoer, "nobody")


async def test_naming_the_login_itself_needs_no_sudo(target: Target) -> None:
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("id", "-un"), run_as=target.login))).text.strip() == target.login


async def test_sudo_that_asks_is_a_typed_error_and_never_waits(asked: Target) -> None:
    async with asked.connect() as ex:
        with pytest.raises(PrivilegeDenied, match="password") as caught:
            await asyncio.wait_for(ex.run(Exec(argv=("id",), run_as="root")), 10)
        assert "NOPASSWD" in (caught.value.hint or "")
        assert (await ex.run(Exec(argv=("id", "-un")))).text.strip() == asked.login


async def test_sudo_that_refuses_is_a_typed_error(ssh_user: Target) -> None:
    require("sudo", "needs sudo (apt-get install sudo)")
    async with ssh_user.connect() as ex:
        for _ in range(12):  # more often than a connection has channels: each attempt must give its own back
            with pytest.raises(PrivilegeDenied, match="can't become root"):
                await ex.run(Exec(argv=("id",), run_as="root"))
        assert (await ex.run(Exec(argv=("id", "-un")))).text.strip() == ssh_user.login


@pytest.mark.parametrize("way", ["local", "ssh_root", "sudoer"])
async def test_a_user_who_does_not_exist_is_a_typed_error(way: str, request: pytest.FixtureRequest) -> None:
    target: Target = request.getfixturevalue(way)
    async with target.connect() as ex:
        with pytest.raises(PrivilegeDenied, match="no-such-user"):
            await ex.run(Exec(argv=("id",), run_as="no-such-user"))


async def test_a_user_who_is_not_granted_is_denied_by_the_caller(target: Target) -> None:
    async with target.connect("exec:**", run_as=["nobody"]) as ex:
        with pytest.raises(CapabilityDenied, match="run_as:root") as caught:
            await ex.run(Exec(argv=("id",), run_as="root"))
        assert caught.value.layer == "caller"


@pytest.mark.parametrize("way", ["local", "ssh_root", "sudoer"])
async def test_another_users_tree_is_ended_like_ones_own(way: str, request: pytest.FixtureRequest) -> None:
    target: Target = request.getfixturevalue(way)
    nap = "63.0001"
    script = f"setsid sleep {nap} & sleep {nap}"
    async with target.connect() as ex:
        with pytest.raises(StepTimeout):
            await ex.run(Shell(action="t", script=script, run_as="nobody", timeout_s=0.7))
        assert not processes_with_argument(nap)


async def test_a_session_that_its_user_stopped_is_lost_and_what_ran_in_it_ends(local: Target, plain_user: str) -> None:
    script = "echo $PPID; exec sleep 300.5"
    async with local.connect() as ex:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Sink:
            async def write(self, stream: str, data: bytes) -> None:
                seen.set_result(int(data))

        step = asyncio.create_task(
            ex.run_streaming(Shell(action="t", script=script, run_as=plain_user, timeout_s=2), Sink())
        )
        session = await asyncio.wait_for(seen, 10)
        os.kill(session, signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionLost):
                await step
            await eventually(lambda: not processes_with_argument("300.5"), within_s=10, what="the program is ended")
            await eventually(lambda: not alive(session), within_s=10, what="the session is gone")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session, signal.SIGCONT)
        assert (await ex.run(Exec(argv=("id", "-un"), run_as=plain_user))).text.strip() == plain_user


async def test_several_users_at_once_are_kept_apart(ssh_root: Target, plain_user: str) -> None:
    users = ["root", "nobody", plain_user]
    async with ssh_root.connect() as ex:
        steps = [Exec(argv=("id", "-un"), run_as=user) for user in users * 5]
        said = [output.text.strip() for output in await asyncio.gather(*map(ex.run, steps))]
    assert said == users * 5


async def test_a_tree_that_became_root_by_itself_is_ended_through_sudo(sudoer: Target) -> None:
    """sudo(8) relays the SIGTERM that its own user may send it."""
    nap = "63.0002"
    async with sudoer.connect() as ex:
        with pytest.raises(StepTimeout):
            await ex.run(Shell(action="t", script=f"sudo -n sleep {nap}", timeout_s=0.7))
        assert not processes_with_argument(nap)


async def test_processes_beyond_the_logins_signals_are_reported_not_passed_over(sudoer: Target) -> None:
    nap = "63.0003"
    script = f"sudo -n sh -c 'trap \"\" TERM HUP; sleep {nap}; true'"
    async with sudoer.connect() as ex:
        with pytest.raises(OpsError, match="could not be ended") as caught:
            await ex.run(Shell(action="t", script=script, timeout_s=0.7))
        left = processes_with_argument(nap)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left
        assert caught.value.host == ex.host
        assert (await ex.run(Exec(argv=("true",)))).ok
