"""Manifests: what may be said, who may say it, and what a wrong word is answered with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bottle.errors import BadManifest
from bottle.manifest import load_directories, load_object
from bottle.manifest.kinds import EnvValue
from tests.parts.bottle_manifests import ROUTE, HomeRoot, load, refusal


@pytest.fixture
def home(tmp_path: Path) -> HomeRoot:
    root = HomeRoot(tmp_path / "home")
    root.agent("a", "bottle: dev\n", "Be kind.\n")
    return root


def test_a_whole_bottle_is_read(home: HomeRoot) -> None:
    home.bottle(
        "dev",
        "env:\n  MODE: fast\n  KEY: ?the key\n  TOKEN: ${HOST_TOKEN}\n"
        "agent_provider: {template: claude, auth_token: CLAUDE}\n"
        "egress:\n  routes:\n    - host: API.Example.com\n      path_allowlist: [/v1, /v2/]\n"
        "      auth: {scheme: Bearer, token_ref: API}\n"
        "      pipelock: {tls_passthrough: true, ssrf_ip_allowlist: [10.0.0.0/8]}\n"
        "git-gate:\n  user: {name: N}\n  repos:\n"
        "    app: {url: 'ssh://git@10.1.2.3:2222/a/b.git', identity: ~/.ssh/k}\n"
        "supervise: true\n",
    )
    found = load_directories(home.path).load("a")
    bottle = found.bottle
    assert found.prompt == "Be kind.\n"
    assert bottle.env == {
        "MODE": EnvValue(kind="literal", text="fast"),
        "KEY": EnvValue(kind="prompt", text="the key"),
        "TOKEN": EnvValue(kind="host", text="HOST_TOKEN"),
    }
    assert bottle.egress is not None
    assert bottle.egress.routes[0].host == "api.example.com"
    assert bottle.git_gate is not None
    assert bottle.git_gate.repos is not None
    upstream = bottle.git_gate.repos["app"].upstream
    assert (upstream.host, upstream.port) == ("10.1.2.3", 2222)


@pytest.mark.parametrize(
    ("front", "message", "hint"),
    [
        ("egres: {}\n", "dev.md:2: unknown key 'egres'", "did you mean 'egress'?"),
        ("env: {}\nenv: {}\n", "dev.md:3: key 'env' stands twice (first in line 2)", ""),
        (ROUTE.format("x.y") + "      hots: x\n", "dev.md:5: unknown key 'hots' in egress.routes[0]", "'host'"),
        (ROUTE.format("x.y") + "      auth: {}\n", "dev.md:5: egress.routes[0].auth.scheme is missing", "token_ref"),
        (ROUTE.format("x.y") + "      auth: {scheme: Basic, token_ref: A}\n", "dev.md:5: egress.routes[0].auth", ""),
        (ROUTE.format("x.y") + "      role: any\n", "dev.md:5: egress.routes[0].role: is reserved", ""),
        (ROUTE.format("x.y") + "      path_allowlist: [v1]\n", "dev.md:5: egress.routes[0].path_allowlist[0]", ""),
        (ROUTE.format("x.y") + "      path_allowlist: []\n", "dev.md:4: egress.routes[0]: path_allowlist is empty", ""),
        (ROUTE.format("x.y") + "      methods: []\n", "dev.md:4: egress.routes[0]: methods is empty", ""),
        (ROUTE.format("x.y") + "    - host: X.y\n", "dev.md:5: egress.routes[1].host: 'x.y' stands twice", ""),
        (ROUTE.format("10.0.0.1"), "dev.md:4: egress.routes[0].host: is an address", ""),
        (ROUTE.format("'*.y'"), "is a wildcard", ""),
        (ROUTE.format("\u0430pi.y"), "letters outside ASCII", ""),
        (ROUTE.format("https://x.y"), "is not a host name", ""),
        (ROUTE.format("x.y."), "ends with a dot", ""),
        ("env: {A: 1}\n", "dev.md:2: env.A: is not text; quote it", ""),
        ("env: {A: 'x${B}'}\n", "mixes text with ${...}", ""),
        ("env: {A: '${B}x'}\n", "mixes text with ${...}", ""),
        ("env: {A: '${1B}'}\n", "'1B' is not a variable's name", ""),
        ('env: {A: "a\\0b"}\n', "holds a NUL character", ""),
        ("env: {'A-B': x}\n", "dev.md:2: env.A-B", ""),
        ("env: {'1A': x}\n", "dev.md:2: env.1A", ""),
        (
            "env:\n  A: b\n  BOTTLE_PROMPT: x\n",
            "dev.md:4: env.BOTTLE_PROMPT: is set by the bottle itself",
            "another name",
        ),
        ("env: {BOTTLE_IDENTITY: '${X}'}\n", "dev.md:2: env.BOTTLE_IDENTITY: is set by", "another name"),
        ('git-gate: {user: {name: "a\\nb"}}\n', "dev.md:2: git-gate.user.name", ""),
        ("supervise: 'yes'\n", "dev.md:2: supervise: true or false is needed", ""),
        ("egress:\n", "dev.md:2: egress is empty", ""),
        ("git: {user: {}}\n", "dev.md:2: the key 'git' became 'git-gate'", "git.remotes -> git-gate.repos"),
        ("git-gate: {user: {}}\n", "needs name or email", ""),
        ("git-gate: {repos: {a: {url: 'https://x/y', identity: k}}}\n", "is not ssh://", ""),
        ("git-gate: {repos: {a: {url: 'ssh://g@h/../y', identity: k}}}\n", "..", ""),
        ("agent_provider: {template: codex, auth_token: X}\n", "for the claude template only", ""),
        ("agent_provider: {template: claude, forward_host_credentials: true}\n", "for the codex template only", ""),
        (
            "agent_provider: {template: claud}\n",
            "dev.md:2: agent_provider.template: there is no provider 'claud'",
            "did you mean 'claude'?",
        ),
        ("a: &x [*x]\n", "dev.md:2", ""),
        ("- a\n", "dev.md:2: the front matter is a list", ""),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_key(home: HomeRoot, front: str, message: str, hint: str) -> None:
    said, help_text = refusal(home, front)
    assert message in said
    assert hint in help_text


@pytest.mark.parametrize(
    "front",
    [
        ROUTE.format("x.y") + "      auth: {scheme: Bearer, token_ref: sk-live-0123456789}\n",
        "agent_provider: {template: claude, auth_token: sk-live-0123456789}\n",
    ],
)
def test_a_token_in_the_place_of_its_variable_s_name_is_repeated_nowhere(home: HomeRoot, front: str) -> None:
    message, hint = refusal(home, front)
    assert "it takes the NAME of the launcher's variable" in message
    assert "sk-live" not in message + hint


REPOS = "git-gate: {{repos: {{{}: {{url: 'ssh://g@h.x/a', identity: k{}}}}}}}\n"


@pytest.mark.parametrize("name", ["..", ".", "../x", "/x", "a b", "", "a\\n"])
def test_what_becomes_a_path_or_an_argument_is_a_plain_name(home: HomeRoot, name: str) -> None:
    """Of a repository, a skill, a provider, a protected branch."""
    quoted = f'"{name}"'
    assert "is not a repository's name" in refusal(home, REPOS.format(quoted, ""))[0]
    assert "is not a provider's name" in refusal(home, f"agent_provider: {{template: {quoted}}}\n")[0]
    if name not in (".", "..", "../x", "/x"):
        policy = f", policy: {{protected: [{quoted}]}}"
        assert "is not a branch's name" in refusal(home, REPOS.format("a", policy))[0]
    home.bottle("dev", "env: {A: b}\n")
    home.agent("a", f"bottle: dev\nskills: [{quoted}]\n")
    with pytest.raises(BadManifest, match="is not a skill's name"):
        load(home)


@pytest.mark.parametrize(
    ("network", "fine"), [("10.0.0.1/8", False), ("x", False), ("10.0.0.0/8", True), ("10.1.2.3", True)]
)
def test_a_private_network_is_written_as_it_is(home: HomeRoot, network: str, fine: bool) -> None:
    front = ROUTE.format("x.y") + f"      pipelock: {{ssrf_ip_allowlist: ['{network}']}}\n"
    if not fine:
        assert "is not an address or a network in CIDR form" in refusal(home, front)[0]
        return
    home.bottle("dev", front)
    egress = load(home).egress
    assert egress is not None
    assert egress.routes[0].pipelock.ssrf_ip_allowlist == (network if "/" in network else f"{network}/32",)


@pytest.mark.parametrize("line", ["", " ", "a\\tb", "a\\x7f"])
def test_a_line_of_text_holds_something_and_no_control_character(home: HomeRoot, line: str) -> None:
    front = ROUTE.format("x.y") + f'      query_allowlist: ["{line}"]\n'
    assert "is empty or holds a control character" in refusal(home, front)[0]


def test_two_repositories_of_one_address_are_refused(home: HomeRoot) -> None:
    """git would take one of them, and nobody could say which."""
    gate = "git-gate:\n  repos:\n    a: {url: 'ssh://g@h.x/team/site', identity: k}\n"
    message, _ = refusal(home, gate + "    b: {url: 'ssh://g@H.x:22/team/site.git', identity: k}\n")
    assert "dev.md:5: git-gate.repos.b.url: is the address of a, too" in message
    home.bottle("dev", gate + "    b: {url: 'ssh://g@h.x/team/other', identity: k}\n")
    assert load(home).git_gate is not None


def test_a_key_that_nobody_may_use_is_in_no_list_of_keys(home: HomeRoot) -> None:
    _, hint = refusal(home, ROUTE.format("x.y") + "      hots: x\n")
    assert "role" not in hint


def test_an_agent_may_not_grant_anything(home: HomeRoot) -> None:
    home.bottle("dev", "supervise: false\n")
    for key in ("env: {A: b}", "egress: {routes: []}", "extends: dev", "supervise: true", "mounts: []"):
        home.agent("a", f"bottle: dev\n{key}\n")
        with pytest.raises(BadManifest, match=r"a\.md:3: unknown key"):
            load(home)


def test_an_agent_may_claim_a_git_identity_and_no_remote(home: HomeRoot) -> None:
    home.bottle("dev", "supervise: false\n")
    home.agent("a", "bottle: dev\ngit-gate: {user: {name: Bot}}\n")
    assert load(home).supervise is False
    home.agent("a", "bottle: dev\ngit-gate: {repos: {}}\n")
    with pytest.raises(BadManifest, match="unknown key 'repos' in git-gate"):
        load(home)


def test_a_claude_subagents_keys_are_taken_and_mean_nothing(home: HomeRoot) -> None:
    home.bottle("dev", "supervise: false\n")
    home.agent("a", "bottle: dev\nname: x\ndescription: [odd]\nmodel:\ncolor: red\nmemory: user\n")
    assert load(home).supervise is False


def test_a_repository_ships_agents_and_never_bottles(home: HomeRoot, tmp_path: Path) -> None:
    """MF2: a bottle of the working directory doesn't shadow the home root's."""
    home.bottle("dev", "env: {FROM: home}\n")
    cwd = tmp_path / "repo"
    local = HomeRoot(cwd / ".bot-bottle")
    local.bottle("dev", "env: {FROM: repo}\n")
    local.agent("a", "bottle: dev\n", "theirs")
    manifests = load_directories(home.path, cwd)
    found = manifests.load("a")
    assert found.prompt == "theirs"
    assert not found.source.trusted
    assert found.bottle.env["FROM"].text == "home"
    assert any("bottles come from" in warning for warning in manifests.warnings)


def test_a_bad_file_hides_no_other(home: HomeRoot) -> None:
    home.bottle("dev", "supervise: false\n")
    home.bottle("broken", "]\n")
    (home.path / "agents" / "odd.md").write_text("no front matter")
    manifests = load_directories(home.path)
    assert manifests.agents == ["a", "odd"]
    assert manifests.load("a")
    with pytest.raises(BadManifest, match="no front matter"):
        manifests.load("odd")


def test_what_is_no_file_hides_no_other_and_is_not_waited_for(home: HomeRoot) -> None:
    home.bottle("dev", "supervise: false\n")
    (home.path / "bottles" / "directory.md").mkdir()
    (home.path / "agents" / "also.md").mkdir()
    os.mkfifo(home.path / "agents" / "fifo.md")
    manifests = load_directories(home.path)
    assert manifests.load("a")
    told = manifests.problems()
    assert len(told) == 3
    assert all("not a plain file" in each for each in told)


def test_all_that_is_wrong_is_told_at_once_each_thing_once(home: HomeRoot) -> None:
    """Also of a bottle that no agent names, and of files that are left out."""
    home.bottle("dev", "")
    home.bottle("bad", "more: x\n")
    home.bottle("child", "extends: bad\n")
    home.bottle("lost", "extends: nowhere\n")
    home.agent("b", "bottle: bad\n")
    home.agent("c", "botle: dev\n")
    (home.path / "agents" / "Not A Name.md").write_text("")
    told = load_directories(home.path).problems()
    for part in ("bad.md:2: unknown key 'more'", "there is no bottle 'nowhere'", "unknown key 'botle'", "left out"):
        assert sum(part in each for each in told) == 1, (part, told)
    assert len(told) == 4


def test_other_file_names_are_left_out_with_a_warning(home: HomeRoot) -> None:
    for name in ("Dev.md", "9a.md", "notes.txt"):
        (home.path / "bottles" / name).write_text("---\n---\n")
    manifests = load_directories(home.path)
    assert manifests.bottles == []
    assert len(manifests.warnings) == 3


def test_a_name_that_no_identity_could_hold_is_left_out_with_a_warning(home: HomeRoot) -> None:
    home.agent("a" * 65, "bottle: dev\n")
    home.agent("b" * 64, "bottle: dev\n")
    found = load_directories(home.path)
    assert found.agents == ["a", "b" * 64]
    assert any("64 characters at most" in each for each in found.warnings)


def test_what_others_may_write_or_a_link_grants_nothing(home: HomeRoot, tmp_path: Path) -> None:
    """MF3."""
    path = home.bottle("dev", "supervise: false\n")
    path.chmod(0o666)
    with pytest.raises(BadManifest, match="others may write it"):
        load(home)
    path.unlink()
    (tmp_path / "elsewhere.md").write_text("---\nsupervise: true\n---\n")
    path.symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(BadManifest, match="symbolic link"):
        load(home)
    path.unlink()
    (home.path / "bottles").chmod(0o777)
    home.bottle("dev", "supervise: false\n")
    with pytest.raises(BadManifest, match="others may write it"):
        load(home)


def test_the_old_single_file_says_how_to_move(tmp_path: Path) -> None:
    (tmp_path / "bot-bottle.json").write_text("{}")
    with pytest.raises(BadManifest) as caught:
        load_directories(tmp_path / ".bot-bottle")
    assert "bottles/<name>.md" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"bottles": {"dev": {"egres": {}}}}, "bottles.dev: unknown key 'egres'"),
        ({"bottles": {"dev": {"env": None}}}, "bottles.dev: env is empty"),
        ({"bottles": {"dev": []}}, "bottles.dev: a map is needed"),
        ({"bottles": {"dev": {"env": {"A": {1, 2}}}}}, "not JSON-shaped"),
        ({"bottle": {}}, "unknown key 'bottle'"),
    ],
)
def test_an_object_meets_the_same_validator(data: dict[str, Any], says: str) -> None:
    with pytest.raises(BadManifest) as caught:
        load_object({"agents": {"a": {"bottle": "dev", "prompt": "hi"}}, **data}).load("a")
    assert says in str(caught.value)


def test_an_object_and_files_give_one_result(home: HomeRoot) -> None:
    home.bottle("dev", "env: {A: b}\negress: {routes: [{host: X.y}]}\n")
    whole = load_object(
        {
            "bottles": {"dev": {"env": {"A": "b"}, "egress": {"routes": [{"host": "X.y"}]}}},
            "agents": {"a": {"bottle": "dev", "prompt": "Be kind.\n"}},
        }
    ).load("a")
    files = load_directories(home.path).load("a")
    assert (whole.bottle, whole.prompt) == (files.bottle, files.prompt)
