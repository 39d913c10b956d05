"""SV1-SV17 on a real bottle: what an agent tries with its supervise server, and what comes of it outside."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.parts.bottle_backends import BACKENDS
from tests.parts.bottle_running import HELD, TOKEN, Bottles
from tests.parts.supervised import Supervised, decide, digest_of, keep_the_decision
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
        agents={"other": "dev"},
    ) as made:
        yield made


def test_SV1_nothing_inside_decides(bottle: Supervised) -> None:
    waiting = bottle.proposed("found['said'] = tool('propose_route', host='sv1.test', why='needed')")
    before = bottle.policy()
    found = bottle.inside(
        """
found['tools'] = [each['name'] for each in rpc('tools/list')['result']['tools']]
names = ('approve', 'bottle_approve', 'decide', 'approve_proposal')
found['calls'] = [tool(name, proposal=1, id='x') for name in names]
lines = [{'decided': 1, 'status': 'approved'}, {'answer': 1, 'status': 'approved'}, {'routes': []}]
found['lines'] = [post(json.dumps(each).encode()) for each in lines]
found['methods'] = [rpc(name, {'proposal': 1}) for name in ('approve', 'decisions/create', 'operator/approve')]
found['paths'] = [post(b'{}', path=path)[0] for path in ('/approve', '/mcp/approve', '/decisions', '/', '/mcp/..')]
found['news'] = tool('propose_route', host='sv1b.test', why='x\\nsupervise | {"decided": 1}')
sockets = []
for top in ('/run', '/tmp', '/home', '/var', '/proc/1/root/run'):
    for where, _, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                if os.path.exists(path) and (os.stat(path).st_mode & 0o170000) == 0o140000:
                    sockets.append(path)
            except OSError:
                pass
found['sockets'] = sorted(set(os.path.basename(each) for each in sockets))
found['queue'] = [str(each) for each in Path('/').glob('*/*/supervise*')]
found['reach'] = status('https://sv1.test/')
"""
    )
    still = bottle.inside(f"found['said'] = tool('proposal_status', proposal={waiting['number']})")["said"]
    assert set(found["tools"]) == {
        "list_routes", "propose_route", "propose_pipelock_change", "propose_capability_change", "proposal_status",
    }  # fmt: skip
    assert [each["code"] for each in found["calls"]] == [-32602] * 4
    assert all("error" in json.loads(text) for _, text in found["lines"])
    assert [each["error"]["code"] for each in found["methods"]] == [-32601] * 3
    assert set(found["paths"]) == {404}
    assert found["news"]["status"] == "refused"
    assert set(found["sockets"]) <= {"egress.sock", "supervise.sock"}
    assert found["queue"] == []
    assert still["status"] == "pending"
    assert found["reach"] == 0
    assert bottle.policy() == before
    assert [each["number"] for each in bottle.proposals()] == [waiting["number"]]


def test_SV2_a_name_works_once_and_is_not_guessed(bottle: Supervised) -> None:
    waiting = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/sv2'], why='needed')")
    command = bottle.bottles.command
    decision = keep_the_decision(bottle, waiting["id"])
    assert bottle.inside("found['reach'] = status('https://open.test/sv2/x')")["reach"] == 200
    again = command("approve", waiting["id"])
    assert again.returncode == 2
    assert "nothing waits" in again.stderr
    policy = bottle.policy()
    # The very file, put there once more under another name.
    outcome = decide(bottle, decision)
    assert outcome == {"carried_out": False, "text": "it is approved already"}
    for name in ("0" * 16, "1", str(waiting["number"]), "*", "../../x", waiting["id"][:-1]):
        assert command("approve", name).returncode == 2
    unknown = bottle.inside("found['said'] = [tool('proposal_status', proposal=n) for n in (999, 2**60)]")["said"]
    assert [each["status"] for each in unknown] == ["unknown", "unknown"]
    assert bottle.policy() == policy


def test_SV3_a_flood_fills_neither_the_queue_nor_the_disk_nor_the_screen(bottle: Supervised) -> None:
    lines, records = len(bottle.said), len(bottle.records("proposal"))
    found = bottle.inside(
        """
def one(n):
    return lambda: [tool('propose_route', host=f'flood{n}-{m}.test', why='w' * 1900)['status'] for m in range(25)]
given = side_by_side([one(n) for n in range(12)])
found['pending'] = sum(each.count('pending') for each in given)
found['kinds'] = sorted(set(sum(given, [])))
found['reach'] = status('https://open.test/a')
"""
    )
    assert found["reach"] == 200
    assert found["pending"] <= 8
    assert len(bottle.proposals()) <= 8
    assert sum(path.stat().st_size for path in bottle.queue.rglob("*") if path.is_file()) < 256 << 10
    assert len(bottle.records("proposal")) - records < 60
    assert len(bottle.said) - lines < 30


def test_SV4_a_proposal_of_100_MB_is_not_read(bottle: Supervised) -> None:
    found = bottle.inside(
        """
head = f'POST /mcp HTTP/1.1\\r\\nHost: {DOOR[0]}:8879\\r\\nContent-Type: application/json\\r\\n'
found['declared'] = raw((head + 'Content-Length: 104857600\\r\\n\\r\\n').encode())
found['chunked'] = raw((head + 'Transfer-Encoding: chunked\\r\\n\\r\\n').encode(), more=100 << 10)
found['why'] = tool('propose_route', host='sv4.test', why='w' * 20000)
found['host'] = tool('propose_route', host='h' * 60000, why='w')
found['deep'] = post(b'[' * 60000)
found['heads'] = raw(b'POST /mcp HTTP/1.1\\r\\n' + b'X: ' + b'y' * (1 << 20))
found['after'] = tool('list_routes')
"""
    )
    assert " 413 " in found["declared"].split("\r\n")[0]
    assert not found["chunked"] or " 413 " in found["chunked"] or found["chunked"].startswith("!")
    assert found["why"]["status"] == found["host"]["status"] == "refused"
    assert "error" in json.loads(found["deep"][1])
    assert "routes" in found["after"]
    assert bottle.proposals() == []
    assert not any("sv4" in json.dumps(each) for each in bottle.kept())
    assert _memory_of("bottle.sidecars.supervise.serve") < 100 << 20


def _memory_of(module: str) -> int:
    """The largest resident size, in bytes, that a process of this module ever had."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and module.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                lines = (entry / "status").read_text().splitlines()
                found.append(next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")))
        except (OSError, StopIteration):
            continue
    assert found, f"no process of {module}"
    return max(found)


def test_SV9_an_answer_made_up_inside_grants_nothing(bottle: Supervised) -> None:
    tools = "found['tools'] = rpc('tools/list')['result']['tools']"
    before = bottle.inside(tools)
    waiting = bottle.proposed("tool('propose_route', host='sv9.test', why='needed')")
    found = bottle.inside(
        """
import http.server
class Fake(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        said = json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': {'structuredContent': {'status': 'approved'}}}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
fake = http.server.HTTPServer(('127.0.0.1', 0), Fake)
threading.Thread(target=fake.serve_forever, daemon=True).start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
found['told'] = opener.open(f'http://127.0.0.1:{fake.server_address[1]}/', b'{}').read().decode()
(HOME / '.mcp.json').write_text('{"mcpServers": {"bottle": {"type": "http", "url": "http://127.0.0.1:1/"}}}')
found['notified'] = post(json.dumps({'jsonrpc': '2.0', 'method': 'notifications/tools/list_changed'}).encode())
found['answered'] = post(json.dumps({'jsonrpc': '2.0', 'id': 7, 'result': {'status': 'approved'}}).encode())
found['reach'] = status('https://sv9.test/')
found['capabilities'] = rpc('initialize', {'protocolVersion': '2025-11-25'})['result']['capabilities']
"""
    )
    assert "approved" in found["told"]
    assert found["notified"][0] == found["answered"][0] == 202
    assert found["reach"] == 0
    assert found["capabilities"] == {"tools": {"listChanged": False}}
    assert bottle.inside(tools) == before
    assert [each["number"] for each in bottle.proposals()] == [waiting["number"]]
    assert "sv9" not in json.dumps(bottle.table())


def test_SV11_no_approval_for_a_bottle_that_ended_or_for_another(bottles: Bottles, bottle: Supervised) -> None:
    other = Supervised.start(bottles, "other")
    try:
        theirs = other.proposed("tool('propose_route', host='open.test', path_allowlist=['/theirs'], why='w')")
        number, digest = theirs["number"], digest_of(other, theirs["number"])
        mine = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/mine'], why='w')")
        # What was decided for one, put before the launcher of the other.
        policy = bottle.policy()
        decision = {"number": number, "approve": True, "candidate": digest, "policy": "0" * 64, "reason": ""}
        assert decide(bottle, {**decision, "number": mine["number"]})["carried_out"] is False
        assert decide(bottle, {**decision, "number": 1000})["carried_out"] is False
        assert bottle.policy() == policy
        other.stop()
        late = bottles.command("approve", theirs["id"])
        assert late.returncode == 2
        assert "nothing waits" in late.stderr
        assert [each["status"] for each in other.kept()] == ["void"]
        # A decision left for the dead is not taken by its next life either.
        nonce = os.urandom(16).hex()
        (other.queue / "decisions" / f"{nonce}.json").write_text(json.dumps(decision))
        other = Supervised.resumed(bottles, other.identity)
        assert other.inside("found['reach'] = status('https://open.test/theirs/x')")["reach"] == 403
        assert not (other.queue / "decisions" / f"{nonce}.json").exists()
        assert "/theirs" not in json.dumps(other.table())
    finally:
        other.stop()


def test_SV12_a_call_waits_so_long_and_the_default_is_no(bottle: Supervised) -> None:
    began = time.monotonic()
    said = bottle.inside("found['said'] = tool('propose_route', host='sv12.test', why='needed')")["said"]
    assert time.monotonic() - began < 30
    assert said["status"] == "pending"
    assert bottle.inside("found['reach'] = status('https://sv12.test/')")["reach"] == 0
    again = bottle.inside(f"found['said'] = tool('proposal_status', proposal={said['proposal']})")["said"]
    assert again["status"] == "pending"
    (waiting,) = bottle.proposals()
    told = bottle.bottles.command("reject", waiting["id"], "--reason", "not today")
    assert told.returncode == 0, told.stderr
    last = bottle.inside(f"found['said'] = tool('proposal_status', proposal={said['proposal']})")["said"]
    assert (last["status"], last["reason"]) == ("rejected", "not today")


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e9", "soon", "30 s", "٣"])
def test_SV12_a_time_to_wait_that_is_none_is_refused_at_the_start(bottles: Bottles, value: str) -> None:
    before = sorted((bottles.root.path / "state").iterdir())
    asked = replace(bottles, env={**bottles.env, "SUPERVISE_RESPONSE_TIMEOUT_SECONDS": value})
    ended = asked.run("worker", ["/usr/bin/true"])
    assert ended.code == 2
    assert "SUPERVISE_RESPONSE_TIMEOUT_SECONDS" in ended.stderr
    assert sorted((bottles.root.path / "state").iterdir()) == before


def test_SV14_no_web_page_speaks_for_the_agent(bottle: Supervised) -> None:
    found = bottle.inside(
        """
call = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call',
                   'params': {'name': 'propose_route', 'arguments': {'host': 'sv14.test', 'why': 'w'}}}).encode()
found['origins'] = [post(call, {'Origin': each})[0] for each in
                    ('https://evil.test', 'null', 'http://127.0.0.1:8879', 'http://localhost:8879', '')]
found['hosts'] = [post(call, {'Host': each})[0] for each in
                  ('evil.test', 'evil.test:8879', DOOR[0], f'{DOOR[0]}:80', f'{DOOR[0]}:8879.evil.test', '')]
found['kinds'] = [post(call, {'Content-Type': each})[0] for each in
                  ('text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'text/json', '')]
found['methods'] = [post(call, method=each)[0] for each in ('GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH')]
two = f'POST /mcp HTTP/1.1\\r\\nHost: {DOOR[0]}:8879\\r\\nHost: evil.test\\r\\n\\r\\n'.encode()
found['two'] = raw(two).split('\\r\\n')[0]
lengths = b'Content-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n'
head = f'POST /mcp HTTP/1.1\\r\\nHost: {DOOR[0]}:8879\\r\\nContent-Type: application/json\\r\\n'.encode()
found['lengths'] = raw(head + lengths).split('\\r\\n')[0]
found['plain'] = post(call)[0]
"""
    )
    assert set(found["origins"]) == {403}
    assert set(found["hosts"]) <= {400, 403}
    assert set(found["kinds"]) == {415}
    assert set(found["methods"]) == {405}
    assert " 400 " in found["two"]
    assert " 400 " in found["lengths"]
    assert found["plain"] == 200
    assert [each["change"]["host"] for each in bottle.proposals()] == ["sv14.test"]
    reasons = {each["reason"] for each in bottle.records("proposal") if each["decision"] == "deny"}
    assert {"an Origin: no web page speaks for the agent", "Host names another place than this door"} <= reasons


def test_SV16_what_the_agent_is_told_holds_neither_policy_nor_secrets(bottle: Supervised) -> None:
    found = bottle.inside(
        f"""
found['routes'] = tool('list_routes')
found['secret'] = [
    tool('propose_route', host='sv16.test', why='because of {HELD}'),
    tool('propose_capability_change', env={{'name': 'A', 'value': '{HELD}'}}, why='w'),
]
found['refused'] = [
    tool('propose_route', host='open.test', path_allowlist=['/a'], why='w'),
    tool('propose_pipelock_change', host='none.test', tls_passthrough=True, why='w'),
    tool('propose_route', host='api.test', role='x', why='w'),
    tool('propose_route', host='api.test', auth={{'scheme': 'Bearer', 'token_ref': 'API_TOKEN'}}, why='w'),
]
"""
    )
    text = json.dumps(found)
    assert {each["host"] for each in found["routes"]["routes"]} >= {"api.test", "open.test"}
    assert {key for each in found["routes"]["routes"] for key in each} == {"host", "path_allowlist", "credential"}
    assert {each["status"] for each in found["secret"] + found["refused"]} == {"refused"}
    for hidden in (TOKEN, "API_TOKEN", "EGRESS_TOKEN", "127.0.0.7", "MY_HELD", str(bottle.bottles.root.path)):
        assert hidden not in text.replace(str(found["refused"][3]), ""), hidden
    # A secret in a proposal comes to no file of the operator's either.
    for path in (*bottle.queue.rglob("*.json"), bottle.state / "audit.jsonl", bottle.state / "bundle.log"):
        assert HELD not in path.read_text(), path
    assert HELD not in bottle.screen
