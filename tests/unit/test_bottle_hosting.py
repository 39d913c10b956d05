"""What a host keeps of a bottle's surroundings: what isn't there is empty, and what can't be read is told as that."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from bottle import hosting, launch
from bottle.errors import HostUnready
from bottle.hosting import Host, settle
from bottle.manifest.store import load_object
from bottle.plan import BottlePlan, Intent, make_plan
from opsexec.capability import CapabilitySet
from opsexec.errors import CapabilityDenied, StepFailed, UsageError
from opsexec.local import LocalExec
from opsexec.steps import MakeDir, ReadFile

REPOSITORY = {"url": "ssh://git@git.test/site", "identity": "/nowhere/key", "host_key": "ssh-ed25519 AAAA"}


def plan(**bottle: object) -> BottlePlan:
    manifest = {"bottles": {"dev": bottle}, "agents": {"worker": {"bottle": "dev", "prompt": ""}}}
    return make_plan(load_object(manifest).load("worker"), Intent("worker-00000001", arguments=("true",)))


def environment(place: Path) -> Path:
    """An environment whose Python is the system's."""
    place.mkdir()
    (place / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return place


@pytest.mark.anyio
async def test_of_a_host_s_files_the_missing_are_empty_and_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "long").write_text("x" * 100)
    (tmp_path / "directory").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")

    def read(name: str) -> ReadFile:
        return ReadFile(str(tmp_path / name), max_bytes=99)

    async with LocalExec(capabilities=CapabilitySet.of(f"fs.read:{tmp_path}/*")) as ex:
        found = await launch._host(ex, [read("hosts"), read("none"), read("gone")])
        assert list(found.values()) == [b"127.0.0.1 localhost\n", b"", b""]
        for name, says in (("directory", "is a directory"), ("long", "is longer than 99 bytes")):
            with pytest.raises(StepFailed, match=says):
                await launch._host(ex, [read("hosts"), read(name)])
        with pytest.raises(CapabilityDenied):
            await launch._host(ex, [ReadFile("/etc/hosts")])


@pytest.mark.anyio
async def test_an_environment_that_can_t_be_read_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "env" / "pyvenv.cfg").mkdir(parents=True)
    for name, says in (("env", r"at .*/env: .*pyvenv.cfg is a directory"), ("none", r"at .*/none$")):
        with pytest.raises(HostUnready, match=says) as told:
            await settle(Host("local:", "/x", str(tmp_path / name)), plan(), {}, "")
        assert "--host-env names another place" in str(told.value.hint)


@pytest.mark.anyio
async def test_a_directory_that_a_launcher_there_would_take_for_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a name of bottles' own"):
        await settle(Host("local:", f"{tmp_path}/state/", str(environment(tmp_path / "env"))), plan(), {}, "")


@pytest.mark.anyio
async def test_an_environment_of_the_git_gate_that_can_t_be_read_is_told_as_that(tmp_path: Path) -> None:
    environment(tmp_path / "env-egress")
    (tmp_path / "env" / "pyvenv.cfg").mkdir(parents=True)
    host = Host("local:", "/x", str(tmp_path / "env-egress"))
    with pytest.raises(HostUnready, match=r"the git gate at .*/env: .*pyvenv.cfg is a directory"):
        await settle(host, plan(**{"git-gate": {"repos": {"site": REPOSITORY}}}), {}, "")


@pytest.mark.anyio
async def test_one_place_that_can_t_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv-egress" / "pyvenv.cfg").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(hosting, "PLACES", (str(environment(tmp_path / "there")),))
    _, place = await settle(Host("local:", "/x"), plan(), {}, "")
    assert place.runtime.python != f"{tmp_path}/venv-egress/bin/python"


@pytest.mark.anyio
async def test_on_a_host_without_a_directory_for_bottles_it_is_made_under_what_is_asked_for(tmp_path: Path) -> None:
    there = tmp_path / "nowhere" / "yet"
    host = Host("local:", str(there), str(environment(tmp_path / "env")))
    _, place = await settle(host, plan(), {}, "")
    made = [step for step in hosting.arrival(place) if isinstance(step, MakeDir)]
    launching = f"fs.write:{place.state}"  # what every launch needs
    async with LocalExec(capabilities=CapabilitySet.of(launching, *hosting.needs(place))) as ex:
        for step in made:
            await ex.run(step)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (there.parent, there)] == [0o700] * 2
    _, again = await settle(host, plan(), {}, "")
    assert again.missing == ()
