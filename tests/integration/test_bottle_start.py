"""A bottle from manifest to running agent, on each backend, against a TLS upstream that tells what arrived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.audit import verify
from tests.parts.bottle_backends import BACKENDS, Scene, scene
from tests.parts.bottle_running import (
    HELD,
    SCRIPT_HEAD,
    TOKEN,
    Bottles,
    gone,
    processes_with,
    written_with,
)
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

BOTTLE = """env:
  GREETING: hello
  HELD: ${MY_HELD}
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
    - host: open.test
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
    - host: inside.test
"""


@pytest.fixture(scope="module", params=BACKENDS)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    names = ("api.test", "open.test", "inside.test")
    with scene(request, request.param, tmp_path_factory.mktemp("upstream"), names) as made:
        yield made


@pytest.fixture
def bottles(stage: Scene, tmp_path: Path) -> Bottles:
    found = stage.bottles(tmp_path / "home", dev=BOTTLE)
    found.root.agent("worker", "bottle: dev\n", "Work.\n")
    return found


def test_an_allowed_request_arrives_with_the_token_and_the_bottle_holds_none(bottles: Bottles) -> None:
    """CR1, PX26: the token is at the upstream and nowhere in the bottle, not even in an echo."""
    ended = bottles.script(
        "worker",
        """
found['env'] = dict(os.environ)
found['plain'] = get('https://api.test/v1/models', headers={'Authorization': 'Bearer mine', 'Cookie': 'a=b'})
found['gzip'] = get('https://api.test/v1/gzip')
found['h2'] = h2((':method', 'GET'), (':scheme', 'https'), (':authority', 'api.test'), (':path', '/v1/h2'))
found['open'] = get('https://open.test/any', headers={'Authorization': 'Bearer mine'})
found['prompt'] = open(os.environ['BOTTLE_PROMPT']).read()
found['environs'] = readable('environ')
found['argvs'] = readable('cmdline')
""",
    )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["env"]["GREETING"] == "hello"
    assert answers["env"]["HELD"] == HELD
    assert answers["prompt"] == "Work.\n"
    assert [answers[name][0] for name in ("plain", "gzip", "open")] == [200, 200, 200]
    assert TOKEN not in ended.stdout
    assert TOKEN not in ended.stderr
    assert json.loads(answers["gzip"][1])["authorization"] == "Bearer " + "*" * len(TOKEN)
    assert answers["h2"] == "200"
    plain, zipped, second, other = bottles.upstream.requests
    assert second.header("authorization") == [f"Bearer {TOKEN}"]
    assert plain.header("authorization") == zipped.header("authorization") == [f"Bearer {TOKEN}"]
    assert plain.header("cookie") == []
    assert other.header("authorization") == []
    assert written_with(bottles.root.path, TOKEN.encode()) == []
    assert written_with(bottles.root.path, HELD.encode()) == []
    assert written_with(bottles.root.path, b"PRIVATE KEY") == []


def test_nothing_else_is_reached(stage: Scene, bottles: Bottles) -> None:
    """DN1-DN5, DN7, IP1-IP15, NB1, NB2, NB8, NB9, PX1-PX28, PX32, PA1-PA7, PA12, CR6, ES1, ES2, ES10: one door."""
    before = bottles.upstream.connections
    ended = bottles.script(
        "worker",
        f"""
port = {bottles.upstream.port}
found = {{'gate': past_the_gate(port), 'odd': not_http(port), 'around': around_the_gate(port)}}
found['inside'] = get('https://inside.test/')
held = os.environ['HELD']
found['held'] = [get('https://api.test/v1/x', held.encode()), get('https://open.test/?' + held)]
found['sandbox'] = out_of_the_sandbox()
""",
    )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    refused = ("HTTP/1.1 403", "HTTP/1.1 400")
    assert {name: said[:40] for name, said in answers["gate"].items() if not said.startswith(refused)} == {}
    assert {name: said for name, said in answers["odd"].items() if "200 OK" in said} == {}
    assert answers["inside"][0] in (0, 502)
    assert [each[0] for each in answers["held"]] == [403, 403]
    around = answers["around"]
    assert "connected" not in [*around["four"], *around["six"], *around["datagrams"]]
    assert around["lookup"] == ["gaierror"]
    assert set(around["raw"]) <= {"PermissionError", "OSError", "TimeoutError"}
    assert not [each for each in around["resolvers"] if each.startswith("b")]
    sandbox = answers["sandbox"]
    assert set(sandbox["written"]) <= {"PermissionError", "OSError", "FileNotFoundError"}
    assert sandbox["user namespace"] != 0
    # An image has places of its own by these names.
    assert set(sandbox["seen"]) <= ({"/root", "/sys", "/etc/shadow"} if stage.engine else set())
    assert sandbox["processes"] < 8
    assert set(sandbox["capabilities"]) == {"0000000000000000"}
    assert sandbox["no new privileges"]
    assert sandbox["terminal"] == "OSError"
    assert bottles.upstream.requests == []
    assert bottles.upstream.connections == before
    assert TOKEN not in ended.stdout


def test_each_request_is_one_line_of_a_chain_that_verifies(bottles: Bottles) -> None:
    """LG1, LG5, SV16: the reason stands in the line and in the 403; no secret and no query does."""
    ended = bottles.script(
        "worker",
        """
found['a'] = get('https://api.test/v1/a?q=' + 'x' * 20)
found['b'] = get('https://api.test/elsewhere')
found['c'] = get('https://api.test/v1/c', data=os.environ['HELD'].encode())
found['d'] = tunnel('evil\\x1b[2J.test')[1]
found['e'] = get('https://open.test/' + os.environ['HELD'])
""",
    )
    records = bottles.audit(ended.identity)
    seen = [(each["decision"], each["step"].get("path"), each["reason"]) for each in records]
    assert seen[0] == ("allow", "/v1/a", "route")
    assert seen[1][0] == seen[2][0] == "deny"
    assert seen[1][2] in ended.answers["b"][1]
    assert seen[2][2] == "the body holds the value of HELD"
    assert seen[-1][1] == "***"
    assert records[0]["step"]["injected"] == "EGRESS_TOKEN_0"
    text = (bottles.state(ended.identity) / "audit.jsonl").read_bytes()
    assert HELD.encode() not in text
    assert b"\x1b" not in text
    assert verify(bottles.state(ended.identity) / "audit.jsonl").ok


def test_large_bodies_and_events_stream_and_a_secret_in_one_is_cut_off(bottles: Bottles) -> None:
    """DL11, PX20: a body too large to hold is read as it passes."""
    ended = bottles.script(
        "worker",
        """
big = b'x' * (8 << 20)
found['big'] = get('https://open.test/big', data=big)
found['leak'] = get('https://open.test/leak', data=big + os.environ['HELD'].encode() + big)
""",
    )
    assert ended.code == 0, ended.stderr
    assert ended.answers["big"][0] == 200
    assert len(bottles.upstream.requests[0].body) == 8 << 20
    assert ended.answers["leak"][0] in (0, 403)
    assert not [each for each in bottles.upstream.requests if HELD.encode() in each.body]


RELOADED = """
import http.client, time
def kept():
    made = http.client.HTTPSConnection(*PROXY, timeout=10)
    made.set_tunnel('api.test', 443)
    return made
def ask(made):
    try:
        made.request('GET', '/v1/x')
        answer = made.getresponse()
        return [answer.status, answer.read().decode()]
    except OSError as error:
        return [0, type(error).__name__]
    except http.client.HTTPException as error:
        return [0, type(error).__name__]
made = kept()
made.auto_open = 1
found['before'] = ask(made)[0]
made.auto_open = 0
open('ready', 'w').close()
while not os.path.exists('go'): time.sleep(0.02)
found['kept'] = ask(made)
found['new'] = ask(kept())
"""


@pytest.mark.parametrize("table", ["[]", "not json"])
def test_a_new_policy_ends_what_the_old_one_let_in(bottles: Bottles, table: str) -> None:
    """LC6: a table that can't be read is no policy, and then nothing leaves."""
    script = SCRIPT_HEAD + RELOADED + "\nprint(json.dumps(found))"
    launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", script])
    (state,) = (bottles.root.path / "state").iterdir()
    eventually_now((state / "home" / "ready").exists, within_s=20, what="the agent has made its first request")
    (state / "bundle" / "routes.json").write_text(table)
    ours = set(processes_with(f"BOTTLE_IDENTITY={state.name}".encode()))
    (gate,) = ours & set(processes_with(b"bottle.sidecars.egress.serve\x00"))
    os.kill(gate, signal.SIGHUP)
    eventually_now(lambda: '"reload"' in (state / "bundle.log").read_text(), within_s=20, what="the gate has reloaded")
    (state / "home" / "go").touch()
    stdout, stderr = launcher.communicate(timeout=40)
    found = json.loads(stdout)
    assert found["before"] == 200, stderr
    assert found["kept"][0] == 0
    assert found["new"] == [0, "OSError"]
    assert len(bottles.upstream.requests) == 1


def test_an_upstream_that_can_t_prove_its_name_gets_no_token(stage: Scene, bottles: Bottles) -> None:
    """DN8: whoever answers for a name must hold its certificate; the credential waits for that."""
    bottles.root.bottle("dev", stage.bottle(BOTTLE.replace("host: api.test", "host: other.test")))
    bottles.reaching_also = ["--resolve", f"other.test={bottles.upstream.address}:{bottles.upstream.port}"]
    ended = bottles.script("worker", "found['other'] = get('https://other.test/v1/x')")
    assert ended.answers["other"][0] == 502
    assert bottles.upstream.requests == []


def test_a_terminal_gets_from_the_agent_what_draws_and_no_more(bottles: Bottles) -> None:
    """LG7, ES10: no clipboard, no title, no question that the terminal would answer."""
    leader, follower = os.openpty()
    script = r"printf 'plain \033[31mred\033[0m \033]52;c;YQ==\007\033[6n\033]0;title\007end\n'"
    done = subprocess.run(
        bottles.start_argv("worker", ["/bin/sh", "-c", script]),
        env=bottles.environ(), stdout=follower, stderr=subprocess.PIPE, timeout=40, check=False,
    )  # fmt: skip
    os.close(follower)
    assert done.returncode == 0, done.stderr
    shown = os.read(leader, 4096)
    os.close(leader)
    assert shown == b"plain \x1b[31mred\x1b[0m end\r\n"


def test_events_come_one_by_one_and_web_sockets_are_judged(bottles: Bottles) -> None:
    """DL11, DL12, PX26: an event isn't held back for the next; a value in two messages is seen; echoes are masked."""
    ended = bottles.script(
        "worker",
        """
found['events'] = events('https://api.test/v1/events', lambda: get('https://api.test/v1/seen'))
held = os.environ['HELD'].encode()
found['ws'] = websocket('api.test', '/v1/ws', [b'hello', b'again'])
found['leak'] = websocket('api.test', '/v1/ws', [b'x', b'a ' + held, b'after'])
found['split'] = websocket('api.test', '/v1/ws', [held[:9], held[9:], b'after'])
found['elsewhere'] = websocket('api.test', '/v2/ws', [b'x'])[0]
""",
    )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    masked = "Bearer " + "*" * len(TOKEN)
    assert answers["events"] == ["first", masked, "last"]
    assert answers["ws"] == ["HTTP/1.1 101 Switching Protocols", f"{masked} hello", f"{masked} again"]
    assert len(answers["leak"]) == 3
    assert not answers["leak"][-1].startswith("Bearer")
    assert answers["elsewhere"].startswith("HTTP/1.1 403")
    arrived = bottles.upstream.messages
    assert arrived[:3] == [b"hello", b"again", b"x"]
    assert not [each for each in arrived if HELD.encode() in each or each == b"after"]
    assert HELD.encode() not in b"".join(arrived)
    assert TOKEN not in ended.stdout


@pytest.mark.parametrize("moment", ["running", "launching"])
def test_a_killed_launcher_leaves_no_process_and_no_credential(bottles: Bottles, moment: str) -> None:
    """LC1."""
    if moment == "running":
        launcher = bottles.begin("worker", ["/bin/sleep", "600"])
        identity = json.loads(bottles.command("list", "--json").stdout)["bottles"][0]["identity"]
        assert processes_with(b"bottle.sidecars.egress.serve\0")
    else:
        argv = bottles.start_argv("worker", ["/bin/sleep", "600"])
        launcher = subprocess.Popen(argv, env=bottles.environ(), stdout=-1, stderr=-1, text=True)
        state = bottles.root.path / "state"
        found = eventually_now(
            lambda: list(state.glob("*/bundle/routes.json")), within_s=30, what="the launch has begun"
        )
        identity = found[0].parent.parent.name
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=10)
    gone(identity.encode())
    assert written_with(bottles.root.path, TOKEN.encode()) == []
    assert written_with(bottles.root.path, b"PRIVATE KEY") == []
    listed = json.loads(bottles.command("list", "--all", "--json").stdout)["bottles"]
    assert [(each["identity"], each["state"]) for each in listed] == [
        (identity, "stopped" if moment == "running" else "left behind")
    ]
    assert json.loads(bottles.command("list", "--json").stdout)["bottles"] == []
    if bottles.engine is not None:
        engine = bottles.engine  # it has the end of its container's processes told to it, a moment later
        eventually_now(lambda: not engine.labelled("ps", f"bottle.identity={identity}"), within_s=20, what="its end")
    assert f"removed {identity}" in bottles.command("cleanup", "--all").stdout
    assert not bottles.state(identity).exists()
    if bottles.engine is not None:
        assert bottles.engine.labelled("network", f"bottle.identity={identity}") == []


def test_a_bottle_is_stopped_listed_and_resumed_where_it_was(stage: Scene, bottles: Bottles) -> None:
    script = "[ -e note ] && cat note && exit 0; echo kept > note; exec sleep 600"
    launcher = bottles.begin("worker", ["/bin/sh", "-c", script])
    (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
    identity = row["identity"]
    note = bottles.state(identity) / "home" / "note"
    eventually_now(note.exists, within_s=10, what="the agent wrote its note")
    assert "running already" in bottles.command("resume", identity, "-y", *bottles.reaching()).stderr
    assert bottles.command("stop", identity).stdout == f"{identity} stopped\n"
    launcher.communicate(timeout=10)
    assert launcher.returncode == 143
    gone(identity.encode())
    assert bottles.command("cleanup").stdout == ""
    resumed = bottles.command("resume", identity, "-y", *bottles.reaching())
    assert (resumed.returncode, resumed.stdout) == (0, "kept\n"), resumed.stderr
    bottles.root.bottle("dev", stage.bottle(BOTTLE.replace("open.test", "other.test")))
    again = bottles.command("resume", identity, "-y", *bottles.reaching())
    assert "changed since this bottle ran" in again.stderr


def test_two_bottles_of_one_agent_don_t_meet(bottles: Bottles) -> None:
    """NB3, NB4, CR12."""
    first = bottles.begin("worker", ["/bin/sh", "-c", "sleep 600"])
    try:
        ended = bottles.script(
            "worker",
            """
found['doors'] = os.listdir('/run/bottle/doors') if os.path.exists('/run/bottle/doors') else ['egress.sock']
found['sleepers'] = [each for each in readable('cmdline') if each.startswith('sleep')]
found['ok'] = get('https://api.test/v1/x')[0]
""",
        )
        assert ended.answers == {"doors": ["egress.sock"], "sleepers": [], "ok": 200}
        one, two = (path.read_text() for path in (bottles.root.path / "state").glob("*/guest/ca.pem"))
        assert one != two
    finally:
        first.terminate()
        first.communicate(timeout=10)


def test_a_workspace_is_a_copy(bottles: Bottles, tmp_path: Path) -> None:
    bottles.cwd = tmp_path / "project"
    bottles.cwd.mkdir()
    (bottles.cwd / "file").write_text("before")
    (tmp_path / "secret").write_text("the host's own")
    (bottles.cwd / "out").symlink_to(tmp_path / "secret")
    ended = bottles.script(
        "worker",
        """
found['cwd'] = os.getcwd()
found['file'] = open('file').read()
found['out'] = os.path.exists('out')
open('file', 'w').write('after')
""",
        "--cwd",
    )
    assert ended.code == 0, ended.stderr
    assert ended.answers == {"cwd": "/home/agent/workspace", "file": "before", "out": False}
    assert (bottles.cwd / "file").read_text() == "before"


def test_a_launch_that_fails_takes_away_what_it_made_and_says_why(bottles: Bottles, tmp_path: Path) -> None:
    environment = tmp_path / "empty"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("/usr/bin/python3")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    bottles.env["BOTTLE_EGRESS_ENV"] = str(environment)
    ended = bottles.run("worker", ["/bin/true"])
    assert ended.code == 1
    assert "egress" in ended.stderr
    assert "Traceback" not in ended.stderr
    (state,) = (bottles.root.path / "state").iterdir()
    assert sorted(path.name for path in state.iterdir()) == [
        "audit.jsonl",
        "bundle.log",
        "lock",
        "metadata.json",
        "shown.txt",
    ]
    assert verify(state / "audit.jsonl").ok
    assert "mitmproxy" in bottles.command("logs", state.name).stdout
    assert f"removed {state.name}" in bottles.command("cleanup").stdout


def test_a_token_that_is_missing_starts_nothing(bottles: Bottles) -> None:
    """CR8."""
    bottles.env["API_TOKEN"] = ""
    ended = bottles.run("worker", ["/bin/true"])
    assert ended.code == 2
    assert "API_TOKEN" in ended.stderr
    assert not (bottles.root.path / "state").exists()
