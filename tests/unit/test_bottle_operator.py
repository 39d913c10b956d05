"""Proposals as data: what may be asked, what it does to a policy, what a person is warned of, and the plan."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.egress import EffectiveRoute
from bottle.manifest import load_object
from bottle.operator.attendant import told_routes
from bottle.operator.candidate import BadProposal, Candidate, read_candidate
from bottle.operator.live import LivePolicy, changed, difference, live_policy, read_policy, resumed
from bottle.operator.risks import distance, risks, skeleton
from bottle.operator.shown import show
from bottle.plan import BottlePlan, Intent, make_plan
from bottle.sidecars.egress.addresses import may_dial
from bottle.sidecars.egress.policy import Route
from bottle.supervise import wait_s
from opsexec.errors import UsageError
from tests.parts.attendants import API, OPEN, POLICY, ask, attended, route

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    ["host", "path_allowlist", "tls_passthrough", "ssrf_ip_allowlist", "read_only", "env", "auth", "role", "name"]
)


# -- what may be asked ------------------------------------------------------------------------------------------------


@given(kind=st.sampled_from(["route", "pipelock", "capability", "other", None]), body=st.dictionaries(keys, json_data))
def test_whatever_is_asked_is_taken_or_refused_with_a_reason(kind: object, body: dict[str, Any]) -> None:
    try:
        candidate = read_candidate(kind, body)
    except BadProposal:
        return
    assert read_candidate(candidate.kind, candidate.body) == candidate


def test_the_same_change_has_one_spelling_and_one_hash() -> None:
    one = read_candidate("route", {"host": "API.Test", "path_allowlist": ["/b", "/a", "/b"]})
    other = read_candidate("route", {"path_allowlist": ["/a", "/b"], "host": "api.test"})
    assert one == other
    assert one.digest == other.digest
    assert one.digest != route("api.test", "/a").digest


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("route", {"host": "*.test"}),
        ("route", {"host": "a.test", "auth": {"scheme": "Bearer", "token_ref": "HOME"}}),
        ("route", {"host": "a.test", "path_allowlist": []}),
        ("route", {"host": "a.test", "path_allowlist": [f"/{n}" for n in range(9)]}),
        ("pipelock", {"host": "a.test"}),
        ("pipelock", {"host": "a.test", "tls_passthrough": True, "ssrf_ip_allowlist": ["10.0.0.1"]}),
        ("pipelock", {"host": "a.test", "tls_passthrough": "yes"}),
        ("capability", {"read_only": "/opt"}),
        ("capability", {"read_only": "/opt/../etc"}),
        ("capability", {"read_only": "/opt/bottle/tools"}),
        ("capability", {"read_only": "/home/agent"}),
        ("capability", {"env": {"name": "A", "value": "${TOKEN}"}}),
        ("capability", {"env": {"name": "HOME", "value": "/x"}}),
        ("capability", {"env": {"name": "A", "value": "b", "more": 1}}),
        ("capability", {}),
    ],
)
def test_what_is_more_than_one_plain_thing_is_refused(kind: str, body: dict[str, Any]) -> None:
    with pytest.raises(BadProposal):
        read_candidate(kind, body)


# -- what it does -----------------------------------------------------------------------------------------------------


def test_what_a_route_is_held_to_stays_when_it_is_widened_and_is_shown() -> None:
    held = LivePolicy((dataclasses.replace(OPEN, path_allowlist=("/a",)),))
    after = changed(held, route("open.test"))
    assert (after.routes[0].methods, after.routes[0].query) == (OPEN.methods, OPEN.query)
    assert "egress open.test: only GET HEAD" in held.lines()
    assert "egress open.test: only these query parameters: page" in held.lines()
    assert told_routes(held)[0]["methods"] == ["GET", "HEAD"]


def test_a_route_adds_paths_and_takes_none_away_and_keeps_the_credential_where_it_was() -> None:
    after = changed(POLICY, route("api.test", "/v2"))
    assert difference(POLICY, after) == ["+ egress api.test: path /v2"]
    found = next(each for each in after.routes if each.host == "api.test")
    assert (found.path_allowlist, found.slot, found.private) == (("/v1", "/v2"), API.slot, API.private)


def test_a_new_route_has_no_credential_and_no_private_address() -> None:
    after = changed(POLICY, route("new.test"))
    assert after.routes[-1] == EffectiveRoute("new.test", None, None, None, False, (), "manifest")


def test_widening_to_every_path_says_which_paths_it_replaces() -> None:
    after = changed(POLICY, route("api.test"))
    assert difference(POLICY, after) == ["- egress api.test: path /v1", "+ egress api.test: every path"]


@pytest.mark.parametrize(
    "candidate",
    [
        route("open.test", "/a"),
        route("api.test", "/v1"),
        route("model.test", "/x"),
        read_candidate("pipelock", {"host": "model.test", "tls_passthrough": False}),
        read_candidate("pipelock", {"host": "none.test", "tls_passthrough": True}),
        read_candidate("pipelock", {"host": "api.test", "ssrf_ip_allowlist": ["127.0.0.7"]}),
    ],
)
def test_what_is_so_already_or_the_providers_changes_nothing(candidate: Candidate) -> None:
    with pytest.raises(BadProposal):
        changed(POLICY, candidate)


def test_a_policy_reads_back_as_it_was_written() -> None:
    policy = LivePolicy(POLICY.routes, ("/opt/x",), (("A", "b"),))
    again = read_policy(json.loads(json.dumps(policy.rendered())))
    assert again == policy
    assert again.digest == policy.digest
    with pytest.raises(ValueError, match="no policy"):
        read_policy({"routes": [{}], "trees": [], "env": []})


def test_the_agent_is_told_of_its_routes_without_slots_or_addresses() -> None:
    told = json.dumps(told_routes(POLICY))
    assert "EGRESS" not in told
    assert "127.0.0.7" not in told


def test_the_name_of_a_proposal_changes_with_the_bottle_the_change_and_the_policy(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    tokens = {
        show("b-00000001", proposal, POLICY).token,
        show("b-00000002", proposal, POLICY).token,
        show("b-00000001", proposal, changed(POLICY, route("x.test"))).token,
        show("b-00000001", ask(attendant, "new2.test"), POLICY).token,
    }
    assert len(tokens) == 4
    assert all(len(each) == 16 for each in tokens)


# -- what a person is warned of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("xn--pn-emc.test", "internationalised"),
        ("api.test.evil.example", "holds the name api.test"),
        ("api-test.example", "holds the name api.test"),
        ("ap1.test", "looks like api.test"),
        ("aapi.test", "looks like api.test"),
        ("x.api.test", "one tree with api.test"),
        ("me.github.io", "anybody may have a name below github.io"),
        ("webhook.site", "hands it on"),
        ("intranet", "no domain"),
        (f"{'a' * 50}.example", "carry data"),
    ],
)
def test_a_host_that_asks_for_a_second_look_gets_one(host: str, word: str) -> None:
    assert any(word in risk for risk in risks(POLICY, route(host, "/x")))


def test_an_ordinary_host_with_paths_has_nothing_to_be_warned_of() -> None:
    assert risks(POLICY, route("docs.python.example", "/3/")) == []
    assert risks(POLICY, route("registry.npmjs.org", "/left-pad")) == []


def test_a_network_that_is_more_than_a_few_hosts_is_named() -> None:
    def said(network: str) -> str:
        return "; ".join(
            risks(POLICY, read_candidate("pipelock", {"host": "api.test", "ssrf_ip_allowlist": [network]}))
        )

    assert "metadata" in said("169.254.169.254")
    assert "host itself" in said("127.0.0.1")
    assert "addresses" in said("10.0.0.0/8")
    assert "private" in said("10.1.2.3")
    assert "private" in said("8.0.0.0/6")  # 10.0.0.0/8 is in it
    assert "host itself" in said("0.0.0.0")
    assert "host itself" in said("::1")
    assert said("93.184.215.14") == ""


@pytest.mark.parametrize(
    "network",
    [
        "fec0::1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "100.64.0.1",
        "168.63.129.16",
        "192.88.99.1",
        "5f00::1",
        "224.0.0.1",
    ],
)
def test_a_network_that_egress_does_not_dial_by_itself_is_called_private(network: str) -> None:
    assert not may_dial(network, Route("api.test"))
    candidate = read_candidate("pipelock", {"host": "api.test", "ssrf_ip_allowlist": [network]})
    assert any(risk.endswith("is private") for risk in risks(POLICY, candidate))


def test_letters_that_look_alike_fold_to_one() -> None:
    assert skeleton("xn--pi-6kc.test") == skeleton("api.test")
    assert skeleton("rnodel.test") == skeleton("model.test")
    assert distance("abc", "abd") == 1
    assert distance("", "abc") == 3


@pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("0.5", 0.5), ("600", 600.0)])
def test_a_time_to_wait_is_a_number_of_seconds(text: str, seconds: float) -> None:
    assert wait_s({"SUPERVISE_RESPONSE_TIMEOUT_SECONDS": text}) == seconds
    assert wait_s({}) == 30.0


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "601", "1_0", "x", " "])
def test_what_is_no_time_to_wait_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        wait_s({"SUPERVISE_RESPONSE_TIMEOUT_SECONDS": text})


# -- the plan ---------------------------------------------------------------------------------------------------------


def planned(template: str, *arguments: str, supervise: bool = True, resume: bool = False) -> BottlePlan:
    """The plan of a bottle with supervise."""
    bottle = {
        "supervise": supervise,
        "agent_provider": {"template": template},
        "egress": {"routes": [{"host": "api.test", "path_allowlist": ["/v1"]}]},
        "env": {"MODE": "slow", "PIN": "?the pin"},
    }
    loaded = load_object({"bottles": {"dev": bottle}, "agents": {"worker": {"bottle": "dev"}}}).load("worker")
    return make_plan(loaded, Intent("worker-00000001", arguments=arguments, copy_cwd="/src", resume=resume))


def test_an_agent_finds_its_supervise_server_where_it_looks_for_servers() -> None:
    claude, codex = planned("claude"), planned("codex")
    state = json.loads(next(each.content for each in claude.provider.files if each.path.endswith("/.claude.json")))
    url = "http://127.0.0.1:8879/mcp"
    assert state["mcpServers"] == {"bottle": {"type": "http", "url": url}}
    config = tomllib.loads(next(each.content for each in codex.provider.files if each.path.endswith("config.toml")))
    assert config["mcp_servers"]["bottle"]["url"] == url
    env = planned("command", "true").guest_env()
    assert (env["BOTTLE_SUPERVISE"], env["NO_PROXY"]) == (url, "localhost,127.0.0.1")


def test_without_supervise_there_is_no_word_of_it() -> None:
    for plan in (planned("claude", supervise=False), planned("codex", supervise=False)):
        assert not any("mcp" in each.content for each in plan.provider.files)
        assert "BOTTLE_SUPERVISE" not in plan.guest_env()


@pytest.mark.parametrize(
    ("template", "arguments"),
    [("command", ("make",)), ("claude", ("-p", "x")), ("codex", ("exec", "x")), ("claude", ())],
)
def test_a_rebuilt_plan_is_that_of_a_resume_with_the_change_and_nothing_else(
    template: str, arguments: tuple[str, ...]
) -> None:
    plan = planned(template, *arguments)
    policy = changed(live_policy(plan), read_candidate("capability", {"env": {"name": "MODE", "value": "fast"}}))
    policy = changed(policy, read_candidate("capability", {"read_only": "/opt/go"}))
    rebuilt = resumed(plan, policy)
    assert rebuilt.command == planned(template, *arguments, resume=True).command
    assert resumed(rebuilt, policy).command == rebuilt.command
    assert rebuilt.workspace.source is None
    assert rebuilt.workspace.workdir == plan.workspace.workdir
    assert rebuilt.env["MODE"].text == "fast"
    assert rebuilt.env["PIN"] == plan.env["PIN"]
    assert rebuilt.guest_env()["PATH"].endswith(":/opt/go/bin")
    assert live_policy(rebuilt) == policy
    assert rebuilt.digest != plan.digest
