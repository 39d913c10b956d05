"""A repository's own policy: what a manifest may say of it, that it is shown, and that it reaches the gate as said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bottle.credentials import masked
from bottle.errors import BadManifest
from bottle.git_gate import configuration
from bottle.manifest.model import GatePolicy
from bottle.plan import BottlePlan
from bottle.preflight import preflight
from bottle.sidecars.git_gate.config import read_config
from opsexec.errors import UsageError
from opsexec.far.git_policy import DEFAULTS
from tests.parts.bottle_manifests import HomeRoot, load, refusal
from tests.unit.test_bottle_plan import plan_of

REPOSITORY = "git-gate:\n  repos:\n    site:\n      url: ssh://git@git.x/a\n      identity: k\n      policy: {}\n"


@pytest.fixture
def home(tmp_path: Path) -> HomeRoot:
    root = HomeRoot(tmp_path / "home")
    root.agent("a", "bottle: dev\n")
    return root


def planned(**policy: object) -> BottlePlan:
    each = {"url": "ssh://git@git.x/a", "identity": "k", "policy": policy}
    return plan_of({"git-gate": {"repos": {"site": each}}})


def told(plan: BottlePlan) -> bytes:
    return json.dumps(configuration(plan, masked(plan), {8878: "/s"}, "/w", "/g")).encode()


def test_every_key_of_the_gates_policy_has_one_in_the_manifest() -> None:
    assert set(GatePolicy.model_fields) == set(DEFAULTS)


def test_what_is_said_reaches_the_gate_and_nothing_else() -> None:
    plan = planned(protected=["HEAD", "release/*"], forced=False, max_bytes=1024)
    found = read_config(told(plan)).repositories["site"].policy
    assert found == {"protected": ["HEAD", "release/*"], "forced": False, "max_bytes": 1024}
    assert read_config(told(planned())).repositories["site"].policy == {}


def test_a_gate_that_differs_from_the_default_is_shown() -> None:
    text = "\n".join(preflight(planned(protected_paths=False, protected=[])))
    assert "site -> git.x:22 [policy: protected=[], protected_paths=false]" in text
    assert "[policy" not in "\n".join(preflight(planned()))


@pytest.mark.parametrize(
    ("policy", "message", "hint"),
    [
        ("{force: true}", "dev.md:7: unknown key 'force' in git-gate.repos.site.policy", "did you mean 'forced'?"),
        ("{lfs: 'yes'}", "dev.md:7: git-gate.repos.site.policy.lfs: true or false", ""),
        ("{max_bytes: -1}", "dev.md:7: git-gate.repos.site.policy.max_bytes", ""),
        ("{max_bytes: 99999999999999}", "dev.md:7: git-gate.repos.site.policy.max_bytes", ""),
        ("{protected: main}", "dev.md:7: git-gate.repos.site.policy.protected", ""),
        ("{protected: ['a b']}", "is not a branch's name", ""),
        ("", "dev.md:7: git-gate.repos.site.policy is empty", ""),
    ],
)
def test_what_is_wrong_is_named(home: HomeRoot, policy: str, message: str, hint: str) -> None:
    said, help_text = refusal(home, REPOSITORY.format(policy))
    assert message in said
    assert hint in help_text


def test_an_agents_file_may_not_say_it(home: HomeRoot) -> None:
    home.agent("a", "bottle: dev\ngit-gate: {repos: {site: {policy: {lfs: true}}}}\n")
    home.bottle("dev", "supervise: false\n")
    with pytest.raises(BadManifest, match="unknown key 'repos' in git-gate"):
        load(home)


def test_the_gate_refuses_a_policy_it_does_not_know() -> None:
    config = json.loads(told(planned()))
    config["repositories"]["site"]["policy"] = {"everything": True}
    with pytest.raises(UsageError, match="has the key 'everything'"):
        read_config(json.dumps(config).encode())
