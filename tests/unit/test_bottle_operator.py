"""Proposals as data: what may be asked, what it does to a policy, what a person is warned of, and the queue on disk."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.egress import EffectiveRoute
from bottle.errors import PolicyInDoubt
from bottle.manifest import load_object
from bottle.operator.attendant import MAX_EVER, MAX_PENDING, Attendant, told_routes
from bottle.operator.candidate import BadProposal, Candidate, read_candidate
from bottle.operator.live import LivePolicy, changed, difference, live_policy, read_policy, resumed
from bottle.operator.queue import Decision, Queue, QueueUnreadable, new_nonce
from bottle.operator.risks import distance, risks, skeleton
from bottle.operator.shown import show
from bottle.plan import BottlePlan, Intent, make_plan
from bottle.supervise import wait_s
from opsexec.errors import OpsError, UsageError

API = EffectiveRoute("api.test", ("/v1",), "Bearer", "EGRESS_TOKEN_0", False, ("127.0.0.7/32",), "manifest")
OPEN = EffectiveRoute("open.test", None, None, None, False, (), "manifest", ("GET", "HEAD"), ("page",))
MODEL = EffectiveRoute("model.test", None, "Bearer", "EGRESS_TOKEN_1", True, (), "provider")
POLICY = LivePolicy((API, OPEN, MODEL))

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    ["host", "path_allowlist", "tls_passthrough", "ssrf_ip_allowlist", "read_only", "env", "auth", "role", "name"]
)


def route(host: str, *paths: str) -> Candidate:
    return read_candidate("route", {"host": host, "path_allowlist": list(paths) or None})


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
    assert said("10.1.2.3") == ""


def test_letters_that_look_alike_fold_to_one() -> None:
    assert skeleton("xn--pi-6kc.test") == skeleton("api.test")
    assert skeleton("rnodel.test") == skeleton("model.test")
    assert distance("abc", "abd") == 1
    assert distance("", "abc") == 3


# -- the queue --------------------------------------------------------------------------------------------------------


class Kept:
    """An audit in a list."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: Any) -> object:
        """Keep it."""
        self.records.append(dict(record))
        return None


def attended(place: Path, policy: LivePolicy = POLICY) -> tuple[Attendant, list[dict[str, Any]]]:
    """An attendant, and what it tells the daemon."""
    told: list[dict[str, Any]] = []
    attendant = Attendant("worker-00000001", Queue(place), policy, Kept(), lambda _: None, lambda _: None)
    attendant.attach(lambda line: told.append(json.loads(line)))
    return attendant, told


def ask(attendant: Attendant, host: str, *paths: str) -> Any:
    """Propose a route; what is kept of it."""
    body = {"host": host, "path_allowlist": list(paths) or None}
    attendant.take({"event": "ask", "ask": 1, "kind": "route", "candidate": body, "why": "w"})
    return Queue(attendant_place(attendant)).proposals()[-1]


def attendant_place(attendant: Attendant) -> Path:
    """Where its bottle is."""
    return attendant.queue.place.parent


def test_only_its_owner_enters_the_queue(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    for path in (tmp_path / "supervise").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path
    assert stat.S_IMODE((tmp_path / "supervise").stat().st_mode) == 0o700


def test_SV3_so_many_wait_and_so_many_are_ever_asked(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    for n in range(500):
        ask(attendant, f"n{n}.test")
    assert len(list((tmp_path / "supervise" / "proposals").iterdir())) == MAX_PENDING
    assert told[-1]["status"] == "refused"
    for _ in range(MAX_EVER):
        for proposal in Queue(tmp_path).proposals():
            if proposal.status == "pending":
                decide(attendant, proposal, approve=False)
        for n in range(MAX_PENDING):
            ask(attendant, f"m{len(told)}x{n}.test")
    assert len(Queue(tmp_path).proposals()) == MAX_EVER
    assert len(attendant.audit.records) < 4 * MAX_EVER  # type: ignore[attr-defined] # it is the list above


def decide(
    attendant: Attendant, proposal: Any, *, approve: bool, apply: Any = None, **other: Any
) -> tuple[bool, str] | None:
    """Decide as the command does, let the attendant carry it out, and return the outcome."""

    async def nothing(_: LivePolicy) -> None:
        return None

    queue = Queue(attendant_place(attendant))
    fields = {
        "number": proposal.number, "candidate": proposal.candidate.digest, "policy": attendant.policy.digest, **other,
    }  # fmt: skip
    decision = Decision(nonce=new_nonce(), approve=approve, **fields)
    queue.decide(decision)
    asyncio.run(attendant.carry_out_what_is_there(apply or nothing))
    return queue.outcome(decision)


def test_a_decision_is_claimed_once_or_withdrawn_once(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    queue = Queue(tmp_path)
    decision = Decision(new_nonce(), proposal.number, True, proposal.candidate.digest, POLICY.digest)
    queue.decide(decision)
    assert queue.withdraw(decision)
    assert not queue.withdraw(decision)
    assert list(queue.claim()) == []
    queue.decide(decision)
    (found,) = queue.claim()
    assert (found.number, found.uid) == (proposal.number, os.geteuid())
    assert not queue.withdraw(decision)
    assert list(queue.claim()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"number": "1", "approve": true}', "{" * 10000])
def test_what_is_no_decision_is_no_word_at_all(tmp_path: Path, text: str) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    (tmp_path / "supervise" / "decisions" / f"{new_nonce()}.json").write_text(text)
    (tmp_path / "supervise" / "decisions" / "x.json").write_text(text)
    assert list(Queue(tmp_path).claim()) == []


def test_a_link_in_the_place_of_a_decision_is_no_word_either(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    real = tmp_path / "elsewhere.json"
    decision = {"number": proposal.number, "approve": True, "candidate": proposal.candidate.digest}
    real.write_text(json.dumps({**decision, "policy": POLICY.digest, "reason": ""}))
    (tmp_path / "supervise" / "decisions" / f"{new_nonce()}.json").symlink_to(real)
    assert list(Queue(tmp_path).claim()) == []


def test_an_approval_is_audited_with_its_diff_before_it_is_carried_out(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test", "/x")
    seen: list[Any] = []

    async def apply(policy: LivePolicy) -> None:
        seen.extend(attendant.audit.records)  # type: ignore[attr-defined] # it is the list above
        assert policy == changed(POLICY, route("new.test", "/x"))

    assert decide(attendant, proposal, approve=True, apply=apply) == (True, "in force: + egress new.test: path /x")
    assert seen[-1]["step"]["diff"] == ["+ egress new.test: path /x"]
    assert seen[-1]["decision"] == "allow"
    assert told[-1] == {"decided": 1, "status": "approved", "reason": ""}
    assert Queue(tmp_path).policy() == attendant.policy


def test_SV15_what_cannot_be_carried_out_is_denied_and_the_agent_is_told(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test")

    async def lost(_: LivePolicy) -> None:
        raise OpsError("the link is gone")

    outcome = decide(attendant, proposal, approve=True, apply=lost)
    assert outcome is not None
    assert outcome[0] is False
    assert attendant.policy == POLICY
    assert told[-1]["status"] == "failed"
    assert attendant.audit.records[-1]["decision"] == "deny"  # type: ignore[attr-defined] # it is the list above
    assert decide(attendant, proposal, approve=True) == (False, "it is failed already")


def test_a_daemon_that_says_more_refusals_than_anybody_reads_fills_no_audit(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    for count in range(1, 5000):
        attendant.take({"event": "refused", "reason": "a", "count": count})
        attendant.take({"event": "refused", "reason": f"r{count}", "count": 1})
        attendant.take({"event": "refused", "reason": "a", "count": 1})
    assert len(attendant.audit.records) < 120  # type: ignore[attr-defined] # it is the list above


def test_a_queue_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    shutil.rmtree(tmp_path / "supervise" / "proposals")
    with pytest.raises(QueueUnreadable, match="can't be written"):
        ask(attendant, "new.test")


def test_a_policy_in_doubt_ends_the_bottle(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")

    async def half(_: LivePolicy) -> None:
        raise PolicyInDoubt("half in force")

    with pytest.raises(PolicyInDoubt):
        decide(attendant, proposal, approve=True, apply=half)
    assert attendant.policy == POLICY


def test_no_audit_no_change(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    applied: list[LivePolicy] = []

    class Full:
        def append(self, record: Any) -> object:
            raise OSError("disk full")

    attendant.audit = Full()

    async def apply(policy: LivePolicy) -> None:
        applied.append(policy)

    with pytest.raises(OSError, match="disk full"):
        decide(attendant, proposal, approve=True, apply=apply)
    assert applied == []
    assert attendant.policy == POLICY


def test_an_edited_approval_is_of_the_edit(tmp_path: Path) -> None:
    attendant, told = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    body = {"host": "new.test", "path_allowlist": ["/only"]}
    outcome = decide(attendant, proposal, approve=True, body=body)
    assert outcome == (True, "in force: + egress new.test: path /only")
    assert told[-1]["reason"] == "as the operator edited it"
    assert attendant.audit.records[-1]["step"]["edited"] == body  # type: ignore[attr-defined] # it is the list above


def test_what_waits_is_void_when_the_bottle_ends(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    proposal = ask(attendant, "new.test")
    attendant.over()
    assert [each.status for each in Queue(tmp_path).proposals()] == ["void"]
    assert decide(attendant, proposal, approve=True) == (False, "it is void already")


@pytest.mark.parametrize("text", ["", "[]", '{"number": 1}', "\x00"])
def test_a_queue_that_is_no_queue_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    attendant, _ = attended(tmp_path)
    ask(attendant, "new.test")
    (tmp_path / "supervise" / "proposals" / "1.json").write_text(text)
    with pytest.raises(QueueUnreadable):
        Queue(tmp_path).proposals()


def test_a_taken_over_daemon_can_ask_for_nothing_that_is_granted_by_asking(tmp_path: Path) -> None:
    attendant, _ = attended(tmp_path)
    for event in (
        {"event": "decided", "decided": 1, "status": "approved"},
        {"event": "ask", "ask": "1", "kind": "route", "candidate": {"host": "a.test"}, "why": "w"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": "a.test", "why": "w"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": {"host": "a.test"}, "why": "w\nx"},
        {"event": "ask", "ask": 1, "kind": "route", "candidate": {"host": "a.test"}, "why": "w" * 5000},
        {"event": "refused", "reason": "x" * 10000, "count": 1},
        {"event": 7},
    ):
        attendant.take(event)
    assert Queue(tmp_path).proposals() == []
    assert attendant.policy == POLICY


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
