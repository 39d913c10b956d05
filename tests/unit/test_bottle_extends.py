"""A manifest that extends another: what it takes over, what it replaces, and what it can't extend."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bottle.errors import BadManifest
from bottle.manifest.kinds import AgentProvider, Egress, GitGate, GitUser, Route
from tests.parts.bottle_manifests import ROUTE, HomeRoot, load, refusal


@pytest.fixture
def home(tmp_path: Path) -> HomeRoot:
    root = HomeRoot(tmp_path / "home")
    root.agent("a", "bottle: dev\n", "Be kind.\n")
    return root


class TestExtends:
    def test_keys_merge_as_they_should(self, home: HomeRoot) -> None:
        home.bottle(
            "base",
            "env: {A: base, B: base}\negress: {routes: [{host: base.x}]}\nsupervise: true\n"
            "git-gate:\n  user: {name: Base, email: b@x}\n  repos:\n"
            "    one: {url: 'ssh://g@one/x', identity: k1}\n    two: {url: 'ssh://g@two/x', identity: k2}\n",
        )
        home.bottle(
            "dev",
            "extends: base\nenv: {B: dev}\negress: {routes: [{host: dev.x}]}\n"
            "git-gate:\n  user: {name: Dev}\n  repos:\n    uno: {url: 'ssh://g@ONE/y', identity: k3}\n",
        )
        found = load(home)
        assert {name: value.text for name, value in found.env.items()} == {"A": "base", "B": "dev"}
        assert found.egress is not None
        assert [route.host for route in found.egress.routes] == ["dev.x"]
        assert found.supervise is True
        assert found.git_gate is not None
        assert found.git_gate.user is not None
        assert (found.git_gate.user.name, found.git_gate.user.email) == ("Dev", "b@x")
        assert sorted(found.git_gate.repos or {}) == ["two", "uno"]

    def test_an_empty_map_of_repos_clears_and_an_absent_one_inherits(self, home: HomeRoot) -> None:
        home.bottle("base", "git-gate: {repos: {one: {url: 'ssh://g@one/x', identity: k}}}\n")
        home.bottle("dev", "extends: base\ngit-gate: {repos: {}}\n")
        gate = load(home).git_gate
        assert gate is not None
        assert gate.repos == {}
        home.bottle("dev", "extends: base\nsupervise: true\n")
        gate = load(home).git_gate
        assert gate is not None
        assert list(gate.repos or {}) == ["one"]

    @pytest.mark.parametrize(
        ("bottles", "says"),
        [
            ({"dev": "extends: dev\n"}, "dev.md:2: a bottle extends itself: dev -> dev"),
            ({"dev": "extends: b\n", "b": "extends: c\n", "c": "extends: dev\n"}, "itself: dev -> b -> c -> dev"),
            ({"dev": "extends: gone\n"}, "there is no bottle 'gone' (chain: dev -> gone)"),
            ({"dev": "extends: ../dev\n"}, "is no bottle's name"),
        ],
    )
    def test_a_broken_chain_is_printed(self, home: HomeRoot, bottles: dict[str, str], says: str) -> None:
        """MF5."""
        for name, front in bottles.items():
            home.bottle(name, front)
        with pytest.raises(BadManifest) as caught:
            load(home)
        assert says in str(caught.value)

    def test_what_a_child_says_holds_against_its_parent_and_what_it_does_not_say_is_inherited(
        self, home: HomeRoot
    ) -> None:
        provider = "agent_provider: {template: claude}\n"
        home.bottle("base", f"{provider}supervise: true\n{ROUTE.format('base.x')}git-gate: {{user: {{name: Base}}}}\n")
        home.bottle("dev", "extends: base\nenv: {A: dev}\n")
        found = load(home)
        assert (found.agent_provider, found.supervise) == (AgentProvider("claude"), True)
        assert (found.egress, found.extends) == (Egress((Route("base.x"),)), None)
        assert found.git_gate == GitGate(GitUser("Base"))
        home.bottle(
            "dev",
            "extends: base\nagent_provider: {template: codex}\nsupervise: false\negress: {routes: []}\n"
            "git-gate: {user: {email: d@x}}\n",
        )
        found = load(home)
        assert (found.agent_provider, found.supervise, found.egress) == (AgentProvider("codex"), False, Egress())
        assert found.git_gate == GitGate(GitUser("Base", "d@x"))

    def test_of_git_gate_each_half_is_inherited_by_itself(self, home: HomeRoot) -> None:
        repos = "repos: {one: {url: 'ssh://g@one/x', identity: k}}"
        for base, child in ((f"{{{repos}}}", "{user: {name: N}}"), ("{user: {name: N}}", f"{{{repos}}}")):
            home.bottle("base", f"git-gate: {base}\n")
            home.bottle("dev", f"extends: base\ngit-gate: {child}\n")
            gate = load(home).git_gate
            assert gate is not None
            assert (gate.user, list(gate.repos or {})) == (GitUser("N"), ["one"])
            home.bottle("base", "env: {A: b}\n")
            alone = load(home).git_gate
            home.bottle("dev", f"git-gate: {child}\n")
            assert alone == load(home).git_gate
            assert alone is not None

    def test_a_chain_of_16_is_read_and_no_longer_one(self, home: HomeRoot) -> None:
        names = ["dev", *(f"b{at}" for at in range(2, 18))]
        for name, parent in pairwise(names):
            home.bottle(name, f"extends: {parent}\n")
        home.bottle(names[15], "env: {A: far}\n")
        assert load(home).env["A"].text == "far"
        home.bottle(names[15], f"extends: {names[16]}\n")
        home.bottle(names[16], "env: {A: further}\n")
        with pytest.raises(BadManifest, match="over 16 bottles in one chain"):
            load(home)

    def test_a_missing_parent_is_told_with_those_there_are(self, home: HomeRoot) -> None:
        message, hint = refusal(home, "extends: gone\n")
        assert message.endswith("dev.md:2: there is no bottle 'gone' (chain: dev -> gone)")
        assert hint == "bottles: dev"
