"""What an agent can do to what is written about it: logs, audit, the operator's terminal, the next session."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsexec.audit import verify
from tests.conftest import require
from tests.parts.bottle_backends import BACKENDS, Scene, scene
from tests.parts.bottle_running import HELD, REPOSITORY, START_S, TOKEN, Bottles, Ended, written_with

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away
BOTTLE = """env:
  HELD: ${MY_HELD}
egress:
  routes:
    - host: open.test
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""
INJECTING = r"""
import threading
held = os.environ['HELD']
forged = '{"event": "egress", "decision": "allow", "host": "forged.test"}'
evil = ['\x1b[2J\x1b]0;owned\x07', '"}\n' + forged, '\r\negress | ' + forged, '\u202e\u2066', '\x00\x9b31m']
evil.append('x' * 20000)
found['said'] = []
for each in evil:
    raw, end = each.encode('utf-8', 'replace'), b' HTTP/1.1\r\nHost: open.test\r\n'
    for line in (b'CONNECT ' + raw + b'.test:443', b'GET http://open.test/' + raw):
        with socket.create_connection(PROXY, 10) as made:
            found['said'].append(exchange(made, line + end + b'\r\n')[:40])
    agent = b'User-Agent: ' + raw + b'\r\n'
    for request in (b'GET /' + raw + end, b'GET /x' + end + agent, raw + b' /x' + end):
        found['said'].append(asked('open.test', 'open.test', request + b'\r\n')[:40])
for url in (f'https://open.test/{held}', f'https://open.test/?q={held}', f'https://{held}.test/'):
    get(url)
with socket.create_connection(PROXY, 10) as made:
    exchange(made, f'CONNECT {held}.test:443 HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
get('https://open.test/x', None, {'User-Agent': held, 'Authorization': 'Bearer ' + held})
def some(n):
    for i in range(5):
        get(f'https://open.test/n/{n}/{i}')
workers = [threading.Thread(target=some, args=[n]) for n in range(8)]
[each.start() for each in workers]; [each.join() for each in workers]
def names(*words):
    return subprocess.run(['find', '/', '-xdev', *words], capture_output=True, text=True).stdout.split()
found['seen'] = names('(', '-name', 'audit.jsonl*', '-o', '-name', 'bundle.log', '-o', '-name', 'metadata.json', ')')
found['identity'] = names('-name', '*' + os.environ['BOTTLE_IDENTITY'] + '*')
"""


@dataclass
class Written:
    """What one hostile session left: the launcher's words, the audit, and all files."""

    ended: Ended
    records: list[dict[str, Any]]
    path: Path
    root: Path


def bottles_on(root: Path, stage: Scene) -> Bottles:
    made = stage.bottles(root, dev=BOTTLE)
    made.root.agent("worker", "bottle: dev\n", "The operator's own words.\n")
    return made


@pytest.fixture(scope="module", params=BACKENDS)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, request.param, tmp_path_factory.mktemp("upstream"), ("open.test",)) as made:
        yield made


@pytest.fixture(scope="module")
def written(stage: Scene, tmp_path_factory: pytest.TempPathFactory) -> Written:
    bottles = bottles_on(tmp_path_factory.mktemp("home") / "root", stage)
    ended = bottles.script("worker", INJECTING)
    assert ended.code == 0, ended.stderr
    path = bottles.state(ended.identity) / "audit.jsonl"
    records = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return Written(ended, records, path, bottles.root.path)


def test_lg1_nothing_that_is_sent_becomes_a_record_or_a_line_of_its_own(written: Written) -> None:
    egress = [each for each in written.records if each["listener"] == "egress"]
    assert len(egress) > 20
    assert not [each for each in written.records if each["step"] and each["step"].get("host") == "forged.test"]
    log = (written.path.parent / "bundle.log").read_text()
    for text in (written.path.read_text(), log, written.ended.stderr):
        for character in "\x1b\x07\x00\x9b\u202e\u2066\r":
            assert character not in text
    assert not [line for line in log.splitlines() if not line.partition(" | ")[1]]
    told = [line for line in written.ended.stderr.splitlines() if not line.startswith("bottle: ")]
    assert told == []


def test_lg1_what_the_operator_is_told_is_bounded(written: Written) -> None:
    assert len(written.ended.stderr.splitlines()) < 120
    assert max(map(len, written.path.read_text().splitlines())) < 16384


def test_lg3_the_audit_is_not_in_sight_and_a_change_of_it_shows(written: Written, tmp_path: Path) -> None:
    assert written.ended.answers["seen"] == []
    assert written.ended.answers["identity"] == []
    assert verify(written.path).ok
    lines = written.path.read_bytes().splitlines(keepends=True)
    changed = {
        "edited": [*lines[:5], edited(lines[5]), *lines[6:]],
        "removed": [*lines[:7], *lines[8:]],
        "moved": [*lines[:3], lines[4], lines[3], *lines[5:]],
        "added": [*lines, lines[-1]],
    }
    for how, found in changed.items():
        other = tmp_path / f"{how}.jsonl"
        other.write_bytes(b"".join(found))
        assert not verify(other).ok, how


def edited(line: bytes) -> bytes:
    return json.dumps({**json.loads(line), "reason": "another"}, separators=(",", ":")).encode() + b"\n"


def test_lg4_records_are_numbered_in_the_order_of_decision(written: Written) -> None:
    first = written.records[0]["seq"]
    assert [each["seq"] - first for each in written.records] == list(range(len(written.records)))
    times = [each["ts"] for each in written.records]
    assert times == sorted(times)
    paths = [(each["step"] or {}).get("path", "") for each in written.records]
    for number in range(8):
        mine = [path for path in paths if path.startswith(f"/n/{number}/")]
        assert mine == [f"/n/{number}/{at}" for at in range(5)]


def test_lg5_no_value_of_the_bottle_is_in_what_is_written_or_said(written: Written) -> None:
    for value in (TOKEN, HELD):
        assert written_with(written.root, value.encode()) == []
        assert value not in written.ended.stderr
    assert TOKEN not in written.ended.stdout


FILLING = """
import http.client, os, time
from urllib.parse import urlsplit
gate = urlsplit(os.environ["https_proxy"])
made = http.client.HTTPSConnection(gate.hostname, gate.port)
made.set_tunnel("open.test")
try:
    for at in range(20000):
        made.request("GET", f"/fill/{at}/" + "x" * 1500)
        if made.getresponse().read() is None:
            break
except (OSError, http.client.HTTPException):
    time.sleep(90)  # its gate is gone: somebody must end it
"""
FILLED = """
mount -t tmpfs -o size=1m,mode=700 small "$0/state" && "$@"; code=$?
grep -c '"listener":"egress"' "$0"/state/*/audit.jsonl
exit $code
"""
LATE = 8


@pytest.fixture
def sandboxes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Bubblewrap's alone: an engine wouldn't see the small file system that is mounted for a launcher only."""
    with scene(request, "bwrap", tmp_path_factory.mktemp("upstream"), ("open.test",)) as made:
        yield made


def test_lg2_without_room_for_its_audit_a_bottle_ends(sandboxes: Scene, tmp_path: Path) -> None:
    """The state directory is a file system of 1 MiB: what can't be written down isn't let on, and is no success."""
    require(os.geteuid() == 0, "needs root, to mount a small file system")
    bottles = bottles_on(tmp_path / "root", sandboxes)
    (tmp_path / "root" / "state").mkdir(mode=0o700)
    argv = bottles.start_argv("worker", ["/usr/bin/python3", "-c", FILLING])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", FILLED, str(tmp_path / "root"), *argv],
        env=bottles.environ(), cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0, done
    assert "Traceback" not in done.stderr.partition("is running")[2]
    assert "almost full" in done.stderr or "No space left" in done.stderr or "audit" in done.stderr
    recorded = int(done.stdout.split()[-1])
    assert recorded > 100
    # One request at a time: what was under way when the bottle ended, and no more, is unrecorded.
    assert recorded <= len(sandboxes.upstream.requests) + 1 <= recorded + LATE


ESCAPES = {
    "tmux": r"a\033Ptmux;\033\033]52;c;b3duZWQ=\007\033\\b",
    "screen": r"a\033P\033]52;c;b3duZWQ=\007\033\\b",
    "nested": r"a\033Ptmux;\033\033Ptmux;\033\033\033\033]52;c;eA==\007\033\033\\\033\\b",
    "title": r"a\033]2;owned\033\\b",
    "link": r"a\033]8;;file:///etc/passwd\033\\b\033]8;;\033\\",
    "question": r"a\033[c\033[5n\033P+q544e\033\\b",
    "eight-bit": r"a\302\235\065\062;c;eA==\302\234b",
    "strings": r"a\033P1$r0m\033\\\033_Gx\033\\\033^x\033\\b",
}


def test_lg7_no_escape_reaches_through_to_the_operator_s_terminal(stage: Scene, tmp_path: Path) -> None:
    bottles = bottles_on(tmp_path / "root", stage)
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            bottles.start_argv("worker", ["/usr/bin/printf", r"\n".join(ESCAPES.values())]),
            env=bottles.environ(), stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.PIPE,
            timeout=START_S, check=False,
        )  # fmt: skip
    finally:
        os.close(follower)
    shown = b""
    while select.select([leader], [], [], 0)[0]:
        try:
            shown += os.read(leader, 4096)
        except OSError:
            break
    os.close(leader)
    assert done.returncode == 0, done.stderr
    # What ends a string inside another one may stand there as the character it is; nothing drives a terminal.
    lines = dict(zip(ESCAPES, shown.split(b"\r\n"), strict=True))
    assert all(re.fullmatch(rb"a\\{0,2}b", line) for line in lines.values()), lines


def test_lg8_what_a_session_leaves_behind_speaks_for_nobody_in_the_next(stage: Scene, tmp_path: Path) -> None:
    """The prompt is the operator's again, whatever was written over it; a poisoned log is shown without its escapes."""
    bottles = bottles_on(tmp_path / "root", stage)
    program = (
        "cat $BOTTLE_PROMPT; env | grep -c HISTORY; rm -f $BOTTLE_PROMPT; echo poisoned > $BOTTLE_PROMPT;"
        " echo 'export HISTORY=poisoned' > ~/.profile; cp ~/.profile ~/.bashrc; cp ~/.profile ~/.bash_profile;"
        r" at=${https_proxy#http://};"
        r" printf 'GET http://\033[2Jx/ HTTP/1.1\r\n\r\n' > /dev/tcp/${at%:*}/${at#*:}; exit 0"
    )
    first = bottles.run("worker", ["/bin/bash", "-c", program])
    assert first.code == 0, first.stderr
    assert first.stdout.splitlines() == ["The operator's own words.", "0"]
    again = subprocess.run(
        bottles.argv("resume", first.identity, "-y", *bottles.reaching()),
        env=bottles.environ(), cwd=bottles.cwd, capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert again.stdout.splitlines() == ["The operator's own words.", "0"], again.stderr
    logs = bottles.command("logs", first.identity)
    assert logs.returncode == 0
    assert "\x1b" not in logs.stdout + again.stderr
