"""SV1-SV17 on a real bottle: what an agent tries with its supervise server, and what comes of it outside."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import HELD, TOKEN, Bottles, egress_environment, require_bottles
from tests.parts.ops_agent import OpsAgent
from tests.parts.supervised import Supervised
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

BOTTLE = """supervise: true
env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
    - host: open.test
      path_allowlist: [/a]
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""


@pytest.fixture(scope="module")
def bottles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("api.test", "open.test")) as upstream:
        root = HomeRoot(tmp_path_factory.mktemp("root") / "home")
        root.bottle("dev", BOTTLE)
        root.agent("worker", "bottle: dev\n", "Work.\n")
        root.agent("other", "bottle: dev\n", "Work.\n")
        yield Bottles(root, upstream, env={"SUPERVISE_RESPONSE_TIMEOUT_SECONDS": "0.3"})


@pytest.fixture(scope="module")
def running(bottles: Bottles) -> Iterator[Supervised]:
    bottle = Supervised.start(bottles)
    yield bottle
    bottle.stop()


@pytest.fixture
def bottle(running: Supervised) -> Iterator[Supervised]:
    running.bottles.upstream.requests.clear()
    yield running
    running.clear()


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
    decision = _keep_the_decision(bottle, waiting["id"])
    assert bottle.inside("found['reach'] = status('https://open.test/sv2/x')")["reach"] == 200
    again = command("approve", waiting["id"])
    assert again.returncode == 2
    assert "nothing waits" in again.stderr
    policy = bottle.policy()
    # The very file, put there once more under another name.
    outcome = _decide(bottle, decision)
    assert outcome == {"carried_out": False, "text": "it is approved already"}
    for name in ("0" * 16, "1", str(waiting["number"]), "*", "../../x", waiting["id"][:-1]):
        assert command("approve", name).returncode == 2
    unknown = bottle.inside("found['said'] = [tool('proposal_status', proposal=n) for n in (999, 2**60)]")["said"]
    assert [each["status"] for each in unknown] == ["unknown", "unknown"]
    assert bottle.policy() == policy


def _keep_the_decision(bottle: Supervised, name: str) -> dict[str, object]:
    """Approve, and return what the command handed to the launcher: the digests of what was shown."""
    shown = next(each for each in bottle.proposals() if each["id"] == name)
    done = bottle.bottles.command("approve", name, "--accept-risks")
    assert done.returncode == 0, done.stderr
    record = [each for each in bottle.records("decision") if each["step"]["proposal"] == shown["number"]][-1]
    step = record["step"]
    return {
        "number": shown["number"], "approve": True, "candidate": step["digest"], "policy": step["policy"],
        "reason": "", "body": None,
    }  # fmt: skip


def _decide(bottle: Supervised, decision: dict[str, object], where: Path | None = None) -> dict[str, object]:
    """Write a decision as no command would, and return what came of it."""
    queue = where or bottle.queue
    nonce = os.urandom(16).hex()
    part = queue / "decisions" / f".{nonce}"
    part.write_text(json.dumps(decision))
    part.rename(queue / "decisions" / f"{nonce}.json")
    outcome = queue / "outcomes" / f"{nonce}.json"
    eventually_now(outcome.exists, within_s=20, what="an outcome")
    found: dict[str, object] = json.loads(outcome.read_text())
    return found


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
head = 'POST /mcp HTTP/1.1\\r\\nHost: 127.0.0.1:8879\\r\\nContent-Type: application/json\\r\\n'
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
    assert _decide(bottle, decision)["text"] == "it is another change than the one that was shown"
    mine = _digest_of(bottle, first["number"])
    assert _decide(bottle, {**decision, "candidate": mine})["text"] == "the policy has changed since it was shown"
    assert bottle.policy() == before
    assert bottle.inside("found['reach'] = status('https://open.test/sv5/x')")["reach"] == 403


def _digest_of(bottle: Supervised, number: int) -> str:
    found: str = next(
        each["step"]["digest"] for each in bottle.records("proposal") if each["step"].get("proposal") == number
    )
    return found


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


def test_SV11_no_approval_for_a_bottle_that_ended_or_for_another(bottles: Bottles, bottle: Supervised) -> None:
    other = Supervised.start(bottles, "other")
    try:
        theirs = other.proposed("tool('propose_route', host='open.test', path_allowlist=['/theirs'], why='w')")
        number, digest = theirs["number"], _digest_of(other, theirs["number"])
        mine = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/mine'], why='w')")
        # What was decided for one, put before the launcher of the other.
        policy = bottle.policy()
        decision = {"number": number, "approve": True, "candidate": digest, "policy": "0" * 64, "reason": ""}
        assert _decide(bottle, {**decision, "number": mine["number"]})["carried_out"] is False
        assert _decide(bottle, {**decision, "number": 1000})["carried_out"] is False
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
    asked = Bottles(bottles.root, bottles.upstream, env={"SUPERVISE_RESPONSE_TIMEOUT_SECONDS": value})
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
                  ('evil.test', 'evil.test:8879', '127.0.0.1', '127.0.0.1:80', '127.0.0.1:8879.evil.test', '')]
found['kinds'] = [post(call, {'Content-Type': each})[0] for each in
                  ('text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'text/json', '')]
found['methods'] = [post(call, method=each)[0] for each in ('GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH')]
found['two'] = raw(b'POST /mcp HTTP/1.1\\r\\nHost: 127.0.0.1:8879\\r\\nHost: evil.test\\r\\n\\r\\n').split('\\r\\n')[0]
found['plain'] = post(call)[0]
"""
    )
    assert set(found["origins"]) == {403}
    assert set(found["hosts"]) <= {400, 403}
    assert set(found["kinds"]) == {415}
    assert set(found["methods"]) == {405}
    assert " 400 " in found["two"]
    assert found["plain"] == 200
    assert [each["change"]["host"] for each in bottle.proposals()] == ["sv14.test"]
    reasons = {each["reason"] for each in bottle.records("proposal") if each["decision"] == "deny"}
    assert {"an Origin: no web page speaks for the agent", "Host names another place than this door"} <= reasons


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["cut", "hung"])
def test_SV15_an_approval_over_a_lost_link_grants_nothing(
    bottles: Bottles, tmp_path: Path, how: signal.Signals
) -> None:
    """The bottle is on another host; the link to it is cut, or hangs, before a person says yes."""
    far = tmp_path / "far"
    far.mkdir(mode=0o700)
    with OpsAgent() as there:
        reaching = ["--host", there.url, "--host-dir", str(far), "--host-env", str(egress_environment().resolve())]
        hosted = Bottles(bottles.root, bottles.upstream, env=bottles.env, reaching_also=reaching)
        bottle = Supervised.start(hosted, "other")
        bottle.kept_at = far / bottle.identity
        table = far / bottle.identity / "bundle" / "routes.json"
        try:
            waiting = bottle.proposed("tool('propose_route', host='open.test', path_allowlist=['/far'], why='w')")
            before = table.read_text()
            os.kill(there.pid, how)
            done = bottles.command("approve", waiting["id"], "--accept-risks")
            assert done.returncode in (1, 2), done.stdout
            assert table.read_text() == before
            eventually_now(lambda: bottle.launcher.poll() is not None, within_s=60, what="the bottle ends")
        finally:
            if how is signal.SIGSTOP:
                os.kill(there.pid, signal.SIGCONT)
            bottle.stop()
        assert table.read_text() == before
        assert "/far" not in json.dumps(bottle.policy())
        assert not any(each["status"] == "approved" for each in bottle.kept())


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
