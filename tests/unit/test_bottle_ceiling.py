"""MF12: what a host grants a launch admits its steps as they are, none of them altered, and none with a grant less."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bottle import credentials, launch
from bottle.authority import Authority
from bottle.backends.base import Place, all_steps
from bottle.backends.by_name import backend
from bottle.manifest import load_object
from bottle.plan import Backend, BottlePlan, Intent, make_plan
from bottle.runtime import GitRuntime, Runtime
from opsexec.capability import CapabilitySet
from opsexec.secret import Secret
from opsexec.steps import Step

GIT = GitRuntime("/opt/g/bin/python", ("/opt/g",), "/opt/opsexec", "/opt/g/gitleaks")
PLACE = Place("/state/a-00000000", Runtime("/opt/e/bin/python", ("/opt/e",), "/opt/bottle", GIT), {})
AUTHORITY = Authority("CERT", "AA:BB", Secret("KEY"))
BOTTLE: dict[str, Any] = {
    "egress": {"routes": [{"host": "api.test", "auth": {"scheme": "Bearer", "token_ref": "T"}}]},
    "git-gate": {"repos": {"site": {"url": "ssh://git@h.test/site", "identity": "/k", "host_key": "ssh-ed25519 AAAA"}}},
}


def steps_of(name: Backend) -> tuple[BottlePlan, list[Step], list[str]]:
    data = {"bottles": {"dev": BOTTLE}, "agents": {"a": {"bottle": "dev", "prompt": "P"}}}
    plan = make_plan(load_object(data).load("a"), Intent("a-00000000", name, None, ("true",)))
    secrets = credentials.masked(plan)
    steps = [step for _, step in all_steps(backend(name), plan, PLACE, secrets, AUTHORITY)]
    return plan, steps, launch.capabilities(plan, PLACE, secrets, AUTHORITY)


def admitted(granted: CapabilitySet, step: Step) -> bool:
    return all(granted.admits(need) for need in step.requires())


@pytest.mark.parametrize("name", ["bwrap"])
@pytest.mark.attack("MF12", backend="alone")
def test_every_step_is_granted_and_none_with_one_grant_less(name: Backend) -> None:
    _, steps, granted = steps_of(name)
    assert all(admitted(CapabilitySet.of(*granted), step) for step in steps)
    for at, missing in enumerate(granted):
        fewer = CapabilitySet.of(*granted[:at], *granted[at + 1 :])
        # A tree's grant is asked for again at each entry, on the host; and it covers what is named in it.
        covered = any(missing.startswith(tree.removesuffix("/**")) for tree in granted if tree[-3:] == "/**")
        assert covered or not all(admitted(fewer, step) for step in steps), missing


@pytest.mark.parametrize(
    "altered",
    [
        {"network": True},
        {"name": "b-00000000.agent"},
        {"read_only": {"/host": "/"}},
        {"read_only": {"/root": "/root/"}},
        {"writable": {"/opt/usr": "/usr/"}},
        {"writable": {"/home/agent": "/state/b-00000000/home/"}},
        {"read_only": {"/bundle": "/state/a-00000000/other/"}},
    ],
    ids=str,
)
@pytest.mark.attack("MF12", backend="alone")
def test_a_step_that_was_altered_on_its_way_is_refused(altered: dict[str, Any]) -> None:
    plan, steps, granted = steps_of("bwrap")
    (agent,) = [step for step in steps if getattr(step, "name", "") == f"{plan.identity}.agent"]
    assert not admitted(CapabilitySet.of(*granted), msgspec.structs.replace(agent, **altered))
