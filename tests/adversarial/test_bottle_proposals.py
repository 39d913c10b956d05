"""SV5, SV7, SV8, SV10, SV17: what a person is shown of a proposal, and what one decision can mean."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.parts.bottle_backends import BACKENDS
from tests.parts.bottle_running import Bottles
from tests.parts.supervised import Supervised, decide, digest_of
from tests.parts.supervised_bottles import HELD_AND_OPEN, supervised_bottles


@pytest.fixture(scope="module", params=BACKENDS)
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    with supervised_bottles(
        request,
        tmp_path_factory,
        ("api.test", "open.test"),
        {"dev": HELD_AND_OPEN},
        answer_s=0.3,
        backend=request.param,
    ) as made:
        yield made


def test_SV5_an_approval_is_of_what_was_shown_under_the_policy_that_was_shown(bottle: Supervised) -> None:
    first = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/sv5'], why='needed')")
    # The agent can't put another change in the place of the one that waits.
    changed = bottle.inside("found['said'] = tool('propose_route', host='open.test', why='all of it')")["said"]
    assert changed["status"] == "refused"
    assert [each["change"] for each in bottle.proposals()] == [first["change"]]
    second = bottle.proposed("tool('propose_route', host='sv5.test', path_allowlist=['/x'], why='needed')")
    assert bottle.bottles.command("approve", second["id"], "--accept-risks").returncode == 0
    # The policy is another now, and so is what the first one would lead to: its old name stands for nothing.
    late = bottle.bottles.command("approve", first["id"])
    assert late.returncode == 2
    now = next(each for each in bottle.proposals() if each["number"] == first["number"])
    assert now["id"] != first["id"]
    decision = {"number": first["number"], "approve": True, "candidate": "0" * 64, "policy": "0" * 64, "reason": ""}
    before = bottle.policy()
    assert decide(bottle, decision)["text"] == "it is another change than the one that was shown"
    mine = digest_of(bottle, first["number"])
    assert decide(bottle, {**decision, "candidate": mine})["text"] == "the policy has changed since it was shown"
    assert bottle.policy() == before
    assert bottle.inside("found['reach'] = status('https://open.test/sv5/x')")["reach"] == 403


LOOKALIKES = {
    "xn--pi-6kc.test": "internationalised",
    "open.test.evil.example": "holds the name open.test",
    "0pen.test": "looks like open.test",
    "openn.test": "looks like open.test",
    "a.open.test": "one tree with open.test",
}


@pytest.mark.parametrize("host", LOOKALIKES)
def test_SV7_a_look_alike_is_shown_as_one_and_not_approved_in_passing(bottle: Supervised, host: str) -> None:
    waiting = bottle.proposed(f"tool('propose_route', host={host!r}, path_allowlist=['/x'], why='needed')")
    shown = bottle.bottles.command("proposals").stdout
    assert LOOKALIKES[host] in " ".join(waiting["risks"])
    assert LOOKALIKES[host] in shown
    assert shown.isascii()
    refused = bottle.bottles.command("approve", waiting["id"])
    assert refused.returncode == 2
    assert "--accept-risks" in refused.stderr
    assert host not in json.dumps(bottle.table())


BROAD = ["*", "*.test", "open.*", "10.0.0.1", "[::1]", "0x7f000001", "2130706433", "https://open.test", "open.test:443",
         "a.test/b", "", ".", "open.test.", "\u043e\u0440\u0435n.test", "a b.test"]  # fmt: skip


def test_SV7_a_reason_goes_on_as_no_line_of_ours(bottle: Supervised) -> None:
    """LG1: a reason so long that a terminal breaks it could go on with what looks like a harmless change."""
    why = "w" * 60 + " " * 400 + "  + egress harmless.test: path /x"
    bottle.proposed(f"tool('propose_route', host='sv7.example', path_allowlist=['/y'], why={why!r})")
    shown = bottle.bottles.command("proposals").stdout.splitlines()
    assert "  + egress sv7.example: path /y" in shown
    assert all(len(line) <= 100 for line in shown)
    assert [line for line in shown if "harmless" in line and not line.startswith("    | ")] == []


def test_SV8_what_is_no_single_host_is_refused_and_what_is_broad_is_shown(bottle: Supervised) -> None:
    found = bottle.inside(
        f"""
found['hosts'] = [tool('propose_route', host=each, why='w')['status'] for each in {BROAD!r}]
paths = [['*'], ['/a/../b'], ['/%2e%2e'], ['a'], ['/a?b'], []]
found['paths'] = [tool('propose_route', host='p.test', path_allowlist=each, why='w')['status'] for each in paths]
found['trees'] = [
    tool('propose_capability_change', read_only=each, why='w')['status']
    for each in ('/', '/opt', '/root', '/home', '/etc', '/opt/../etc', '/opt/bottle', '/opt/bottle/tools/x', '/var/run')
]
found['variables'] = [
    tool('propose_capability_change', env={{'name': name, 'value': value}}, why='w')['status']
    for name, value in (('HOME', '/x'), ('A', '${{API_TOKEN}}'), ('A', '?ask them'), ('A B', 'x'))
]
"""
    )
    assert set(found["hosts"] + found["paths"] + found["trees"] + found["variables"]) == {"refused"}
    whole = bottle.proposed("tool('propose_route', host='broad.example', why='w')")
    assert "every path of the host" in whole["risks"]
    wide = bottle.proposed(
        "tool('propose_pipelock_change', host='open.test', ssrf_ip_allowlist=['0.0.0.0/0'], why='w')"
    )
    assert {"0.0.0.0/0 holds a cloud's metadata service", "0.0.0.0/0 is 4294967296 addresses"} <= set(wide["risks"])
    credential = bottle.proposed("tool('propose_route', host='api.test', path_allowlist=['/v2'], why='w')")
    assert "egress puts a credential on requests to this host" in credential["risks"]
    for each in (whole, wide, credential):
        assert bottle.bottles.command("approve", each["id"]).returncode == 2
    assert len(bottle.table()) == len(bottle.policy()["routes"])
    assert "0.0.0.0/0" not in json.dumps(bottle.table())


def test_SV10_one_thing_a_proposal_and_one_a_decision(bottle: Supervised) -> None:
    found = bottle.inside(
        """
def call(host, number):
    params = {'name': 'propose_route', 'arguments': {'host': host, 'why': 'w'}}
    return {'jsonrpc': '2.0', 'id': number, 'method': 'tools/call', 'params': params}
found['batch'] = post(json.dumps([call('b1.test', 1), call('b2.test', 2)]).encode())
found['paths'] = tool('propose_route', host='b3.test', path_allowlist=[f'/p{n}' for n in range(9)], why='w')
both = {'tls_passthrough': True, 'ssrf_ip_allowlist': ['10.0.0.1']}
found['two'] = tool('propose_pipelock_change', host='open.test', why='w', **both)
found['both'] = tool('propose_capability_change', read_only='/opt/x', env={'name': 'A', 'value': 'b'}, why='w')
found['hosts'] = tool('propose_route', host=['b4.test', 'b5.test'], why='w')
found['extra'] = tool('propose_route', host='b6.test', why='w', also={'host': 'b7.test'})
"""
    )
    assert "one JSON-RPC 2.0 message at a time" in found["batch"][1]
    assert {found[each]["status"] for each in ("paths", "two", "both", "hosts", "extra")} == {"refused"}
    assert bottle.proposals() == []
    paths = [f"/p{n}" for n in range(8)]
    waiting = bottle.proposed(f"tool('propose_route', host='b8.test', path_allowlist={paths!r}, why='w')")
    shown = bottle.bottles.command("proposals").stdout
    assert all(f"+ egress b8.test: path {path}\n" in shown for path in paths)
    other = bottle.proposed("tool('propose_route', host='b9.test', path_allowlist=['/x'], why='w')")
    assert bottle.bottles.command("approve", waiting["id"], other["id"]).returncode == 2
    assert bottle.bottles.command("approve", "--all").returncode == 2
    assert len(bottle.proposals()) == 2


def test_SV17_one_question_is_asked_once_and_a_no_stays_one(bottle: Supervised) -> None:
    lines = len(bottle.said)
    ask = "found['said'] = [tool('propose_route', host='sv17.test', why=f'w{n}') for n in range(20)]"
    bottle.inside(ask)
    (waiting,) = bottle.proposals()
    assert waiting["times"] >= 16
    assert sum("proposes a change" in line for line in bottle.said[lines:]) == 1
    assert bottle.bottles.command("reject", waiting["id"], "--reason", "no").returncode == 0
    again = bottle.inside(ask)["said"]
    assert {each["status"] for each in again} == {"rejected"}
    assert {each["reason"] for each in again} == {"no"}
    assert bottle.proposals() == []
    for path in ("/b", "/c"):
        narrower = bottle.proposed(f"tool('propose_route', host='sv17.test', path_allowlist=[{path!r}], why='w')")
        assert bottle.bottles.command("reject", narrower["id"]).returncode == 0
    last = bottle.inside("found['said'] = tool('propose_route', host='sv17.test', path_allowlist=['/d'], why='w')")
    assert last["said"]["status"] == "refused"
    assert bottle.proposals() == []
    assert sum("proposes a change" in line for line in bottle.said[lines:]) == 3
