"""A home on Docker is the agent's when a start is over; what was the agent's already isn't written again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bottle.authority import Authority
from bottle.backends import docker
from bottle.backends.base import UID, Place
from bottle.images import AgentImage
from bottle.manifest import load_object
from bottle.plan import Intent, make_plan
from bottle.runtime import Runtime
from opsexec import CapabilitySet, LocalExec
from opsexec.secret import Secret
from opsexec.steps import Exec
from opsexec.testing import MemoryAudit
from tests.conftest import require

pytestmark = pytest.mark.anyio


def giving_home_to_the_agent(state: Path) -> Exec:
    """The step of a start that does it."""
    data = {"bottles": {"dev": {}}, "agents": {"a": {"bottle": "dev", "prompt": "P"}}}
    plan = make_plan(load_object(data).load("a"), Intent("a-00000000", arguments=("true",), backend="docker"))
    plan = replace(plan, image=AgentImage("image:1", "FROM scratch\n"))
    place = Place(str(state), Runtime("/opt/e/bin/python", ("/opt/e",), "/opt/bottle"), {})
    last = docker.provision(plan, place, Authority("CERT", "AA:BB", Secret("KEY")))[-1]
    assert last.name == "owner"
    (step,) = last.steps
    assert isinstance(step, Exec)
    return step


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


async def test_what_is_not_the_agents_becomes_so_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "needs root: files of two users")
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for path in (home / "mine" / "new", home / "copied" / "deep", elsewhere):
        path.mkdir(parents=True)
    for path in (
        home / "mine" / "kept",
        home / "mine" / "new" / "file",
        home / "copied" / "deep" / "file",
        elsewhere / "x",
    ):
        path.write_text("x")
    (home / "mine" / "link").symlink_to(elsewhere / "x")
    (home / "mine" / "tree").symlink_to(elsewhere)
    for path in (home, home / "mine", home / "mine" / "kept"):
        os.chown(path, UID, UID)
    os.chown(home / "copied", 12345, UID)
    os.chown(home / "copied" / "deep" / "file", UID, 54321)
    before = (home / "mine" / "kept").stat().st_ctime_ns
    step = giving_home_to_the_agent(tmp_path)
    async with LocalExec(capabilities=CapabilitySet.of(*map(str, step.requires())), audit=MemoryAudit()) as ex:
        assert (await ex.run(step)).exit_code == 0
    assert {owner(path) for path in (home, *home.rglob("*"))} == {(UID, UID)}
    assert owner(home / "mine" / "link") == (UID, UID)
    assert {owner(path) for path in (elsewhere, elsewhere / "x")} == {(0, 0)}
    assert (home / "mine" / "kept").stat().st_ctime_ns == before
