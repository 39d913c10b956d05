"""Copies to hosts that are not as one would wish: without rsync, with talkative logins, with few sessions."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import SyncOpts
from opsexec.errors import HostUnsuitable
from opsexec.hosts import bootstrap
from tests.conftest import require
from tests.integration.conftest import require_root, require_sshd
from tests.integration.sync_scene import TREE
from tests.parts.pythons import MINORS, other_pythons
from tests.parts.sshd import Sshd
from tests.parts.sync_trees import Dir, File, plant, snapshot
from tests.parts.targets import Target, over_ssh
from tests.parts.unix_user import unix_user

pytestmark = pytest.mark.anyio


class SshdWithout(Sshd):
    """A server in a mount namespace of its own where programs are hidden under an empty file, as if never installed."""

    hidden: tuple[str, ...] = ()

    def _launch(self, binary: str) -> None:
        wrapper, nothing = self.directory / "sshd-without", self.directory / "nothing"
        nothing.touch()
        mounts = "".join(f"mount --bind {nothing} {path} && " for path in self.hidden)
        wrapper.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'{mounts} exec {binary} "$@"\' sshd "$@"\n')
        wrapper.chmod(0o755)
        super()._launch(str(wrapper))


def hiding(*programs: str) -> SshdWithout:
    require_sshd()
    require_root()
    done = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    require(done.returncode == 0, "needs mount namespaces")
    server = SshdWithout()
    server.hidden = tuple(str(Path(require(name, f"needs {name}")).resolve()) for name in programs)
    return server


@pytest.fixture(scope="module")
def no_rsync() -> Iterator[Sshd]:
    with hiding("rsync") as server:
        yield server


@pytest.fixture(params=["root", "user"])
def bare(request: pytest.FixtureRequest, no_rsync: Sshd, ssh_root: Target, plain_user: str) -> Target:
    """A host without rsync, as root and as a plain user."""
    user = plain_user if request.param == "user" else None
    return over_ssh("bare", no_rsync.endpoint(user=user), ssh_root.audit)


@pytest.mark.parametrize("grants", ["all", "some"])
async def test_a_host_without_rsync_takes_and_gives_a_tar_stream(
    bare: Target, shared_dir: Path, tmp_path: Path, grants: str
) -> None:
    source, dst = shared_dir / "source", shared_dir / "dst"
    plant(os.fsencode(source), Dir({b"x": File(b"1"), b"line\nfeed": Dir({b"y": File(b"2" * 99999)})}))
    dst.mkdir()
    dst.chmod(0o777)
    held = () if grants == "all" else (f"sync.*:{shared_dir}/**",)
    async with bare.connect(*held) as ex:
        for _ in range(2):
            done = await ex.push(f"{source}/", f"{dst}/new/")
        back = await ex.pull(f"{dst}/new/", f"{tmp_path}/back")
    assert (done.changed, done.value["method"], back.value["method"]) == (False, "tar", "tar")
    got, wanted = snapshot(os.fsencode(tmp_path / "back")), snapshot(os.fsencode(source))
    assert {name: (*each[:2], *each[4:]) for name, each in got.items()} == {
        name: (*each[:2], *each[4:]) for name, each in wanted.items()
    }


async def test_a_host_without_python_says_so(ssh_root: Target, shared_dir: Path) -> None:
    candidates = [path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()]
    with hiding(*candidates) as server:
        target = over_ssh("no-python", server.endpoint(), ssh_root.audit)
        async with target.connect() as ex:
            with pytest.raises(HostUnsuitable, match="python3"):
                await ex.push("/etc/hostname", f"{shared_dir}/")


@pytest.mark.parametrize("shell", ["/bin/bash", "fish", "tcsh"])
async def test_a_login_that_talks_does_not_disturb_a_copy(
    sshd: Sshd, ssh_root: Target, shared_dir: Path, shell: str
) -> None:
    require_root()
    noise = "echo 'welcome to rsync: warning'; echo 'rsync: nothing is wrong' >&2\n"
    with unix_user(shell=require(shell, f"needs {shell}")) as user:
        home = Path(f"/home/{user}")
        for name in (".bashrc", ".cshrc", ".tcshrc", ".config/fish/config.fish"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(noise)
        async with over_ssh("noisy", sshd.endpoint(user=user), ssh_root.audit).connect() as ex:
            done = await ex.push("/etc/hostname", f"{home}/got")
        assert done.changed
        assert (home / "got").read_bytes() == Path("/etc/hostname").read_bytes()


async def test_more_copies_than_sshd_has_sessions_all_arrive(ssh_root: Target, shared_dir: Path) -> None:
    require("rsync", "needs rsync")
    (shared_dir / "file").write_bytes(b"content")
    async with ssh_root.connect() as ex:
        await asyncio.gather(*(ex.push(f"{shared_dir}/file", f"{shared_dir}/copy{n}") for n in range(16)))
    assert len(list(shared_dir.glob("copy*"))) == 16


@pytest.mark.parametrize("carrier", ["rsync-held", "tar"])
@pytest.mark.parametrize("version", [f"3.{minor}" for minor in MINORS])
async def test_any_python_from_3_8_on_will_do_on_the_host(
    local: Target, version: str, carrier: str, shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = other_pythons()
    if version not in pythons:
        pytest.skip(f"this machine has no python{version}")
    require("rsync", "needs rsync")
    monkeypatch.setattr(bootstrap, "PYTHONS", (pythons[version],))
    source = shared_dir / "source"
    plant(os.fsencode(source), TREE)
    # Grants that name each level, without `**`, are held entry by entry: by tar.
    levels = ["/**"] if carrier == "rsync-held" else ["", "/*", "/*/*", "/*/*/*"]
    async with local.connect(*(f"sync.*:{shared_dir}/dst{level}" for level in levels)) as ex:
        pushed = await ex.push(f"{source}/", f"{shared_dir}/dst/", SyncOpts(excludes=("*.o",)))
        pulled = await ex.pull(f"{shared_dir}/dst/", f"{shared_dir}/back")
    assert pushed.value["method"] == pulled.value["method"] == carrier.partition("-")[0]
    assert snapshot(os.fsencode(shared_dir / "back")) == snapshot(os.fsencode(source))
