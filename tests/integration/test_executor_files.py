"""File steps, facts and observations over every kind of executor."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from opsexec import CapabilityDenied, PathNotFound, ReadFile, StepFailed, WriteFile
from opsexec.secret import Secret
from opsexec.sinks import LineSink
from opsexec.steps import Facts, Link, MakeDir, MoveFile, Observe, RemoveFile, SetMode, Stat
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


async def test_a_file_is_written_once_read_back_and_removed_once(target: Target, shared_dir: Path) -> None:
    path = str(shared_dir / "a/b/f")
    async with target.connect() as ex:
        step = WriteFile(path=path, content="hi\n", mode="0640", parents=True)
        predicted = await ex.run(step, check=True, diff=True)
        assert predicted.changed
        assert not (shared_dir / "a").exists()
        done = await ex.run(step, diff=True)
        assert (done.changed, done.diff) == (True, predicted.diff)
        assert (await ex.run(step)).changed is False
        assert (await ex.run(ReadFile(path=path))).stdout == b"hi\n"
        found = (await ex.run(Stat(path=path))).value
        assert (found["owner"], found["mode"], found["size"]) == (target.login, "0640", 3)
        assert [(await ex.run(RemoveFile(path=path))).changed for _ in range(2)] == [True, False]


async def test_a_file_is_moved_once_as_it_is_and_never_over_another(target: Target, shared_dir: Path) -> None:
    old, new = str(shared_dir / "old"), str(shared_dir / "new")
    async with target.connect() as ex:
        await ex.run(WriteFile(path=old, content="hi\n", mode="0640"))
        before = os.lstat(old)
        predicted = await ex.run(MoveFile(old, new), check=True, diff=True)
        assert (predicted.changed, os.path.lexists(new)) == (True, False)
        done = await ex.run(MoveFile(old, new), diff=True)
        assert (done.changed, done.diff) == (True, predicted.diff)
        after = os.lstat(new)
        assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
        assert (await ex.run(MoveFile(old, new))).changed is False
        await ex.run(WriteFile(path=old, content="other\n"))
        with pytest.raises(StepFailed, match="nothing is moved over it"):
            await ex.run(MoveFile(old, new))
        assert (await ex.run(ReadFile(path=new))).stdout == b"hi\n"
    held = (f"fs.remove:{old}", f"fs.write:{shared_dir}/**", f"fs.read:{new}")
    async with target.connect(*held) as ex:  # else what it holds could be read where it went
        with pytest.raises(CapabilityDenied, match=r"fs\.read"):
            await ex.run(MoveFile(old, f"{shared_dir}/else"))


async def test_directories_links_and_modes_are_made_so_and_then_left_alone(target: Target, shared_dir: Path) -> None:
    steps = [
        MakeDir(path=f"{shared_dir}/d", mode="0750"),
        Link(path=f"{shared_dir}/l", target="d"),
        SetMode(path=f"{shared_dir}/d", mode="0700"),
    ]
    async with target.connect() as ex:
        assert [(await ex.run(step)).changed for step in steps] == [True, True, True]
        assert [(await ex.run(step)).changed for step in steps[1:]] == [False, False]


async def test_bytes_of_any_kind_and_length_arrive(target: Target, shared_dir: Path) -> None:
    body = os.urandom(3 << 20)
    path = str(shared_dir / os.fsdecode(b"caf\xe9 \xff"))
    async with target.connect() as ex:
        await ex.run(WriteFile(path=path, data=body))
        assert Path(path).read_bytes() == body
        assert (await ex.run(ReadFile(path=path))).stdout_bytes == len(body)
        with pytest.raises(StepFailed, match="longer than"):
            await ex.run(ReadFile(path=path, max_bytes=len(body) - 1))


async def test_a_path_that_is_not_there_is_an_error_of_its_own_kind(target: Target, shared_dir: Path) -> None:
    path = str(shared_dir / "nothing")
    async with target.connect() as ex:
        for step in (ReadFile(path), SetMode(path, mode="0600"), WriteFile(path + "/f", content="x")):
            with pytest.raises(PathNotFound, match="nothing") as caught:
                await ex.run(step)
            assert caught.value.host == ex.host
        (shared_dir / "file").touch()
        with pytest.raises(StepFailed) as other:
            await ex.run(ReadFile(str(shared_dir / "file/f")))
        assert not isinstance(other.value, PathNotFound)


async def test_a_link_out_of_the_grant_is_denied_by_the_host(target: Target, shared_dir: Path) -> None:
    (shared_dir / "in").mkdir(mode=0o777)
    (shared_dir / "in").chmod(0o777)
    (shared_dir / "kept").write_text("kept")
    (shared_dir / "in/link").symlink_to("../kept")
    async with target.connect(f"fs.*:{shared_dir}/in/**") as ex:
        for step in (ReadFile(path=f"{shared_dir}/in/link"), WriteFile(path=f"{shared_dir}/in/link", content="x")):
            with pytest.raises(CapabilityDenied, match="leads to") as caught:
                await ex.run(step)
            assert caught.value.layer == "host"
    assert (shared_dir / "kept").read_text() == "kept"


async def test_a_secret_is_written_and_shows_nowhere(target: Target, shared_dir: Path) -> None:
    path = str(shared_dir / "key")
    async with target.connect() as ex:
        output = await ex.run(WriteFile(path=path, content=Secret("correct-horse"), mode="0600"), diff=True)
    assert "correct-horse" not in repr(output) + str(output.diff)


async def test_many_file_steps_at_once_do_not_mix(target: Target, shared_dir: Path) -> None:
    async with target.connect() as ex:

        async def one(number: int) -> bytes:
            path = str(shared_dir / f"f{number}")
            await ex.run(WriteFile(path=path, content=f"{number}" * 1000))
            return (await ex.run(ReadFile(path=path))).stdout

        bodies = await asyncio.gather(*(one(number) for number in range(40)))
    assert bodies == [f"{number}".encode() * 1000 for number in range(40)]


async def test_facts_are_of_the_login_that_asks(target: Target) -> None:
    async with target.connect("facts:*") as ex:
        value = (await ex.run(Facts())).value
    assert value["user"]["name"] == target.login
    assert value["os"]["id"]
    assert value["memory"]["total_bytes"] > 0
    assert value["tools"]["sh"]


async def test_observations_come_while_they_are_made(target: Target) -> None:
    seen: list[dict[str, object]] = []
    sink = LineSink(lambda _stream, line: seen.append(json.loads(line)))
    async with target.connect() as ex:
        await ex.run(Observe(names=("load", "disks"), interval_s=0.05, count=3), sink)
    assert len(seen) == 3
    assert all(sample["load"] and sample["disks"] for sample in seen)
    stamps = [sample["ts"] for sample in seen]
    assert stamps == sorted(stamps, key=str)


@pytest.mark.parametrize("way", ["local", "ssh_root"])
async def test_a_file_step_runs_as_the_user_it_names(
    way: str, plain_user: str, shared_dir: Path, request: pytest.FixtureRequest
) -> None:
    target: Target = request.getfixturevalue(way)
    (shared_dir / "secret").write_text("secret")
    (shared_dir / "secret").chmod(0o600)
    async with target.connect(f"fs.*:{shared_dir}/**", run_as=[plain_user]) as ex:
        await ex.run(WriteFile(path=f"{shared_dir}/f", content="x", run_as=plain_user))
        assert (await ex.run(Stat(path=f"{shared_dir}/f"))).value["owner"] == plain_user
        with pytest.raises(StepFailed, match="Permission denied") as caught:
            await ex.run(ReadFile(path=f"{shared_dir}/secret", run_as=plain_user))
        assert caught.value.hint
