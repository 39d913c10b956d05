"""The resolver as a process: it asks nobody, whatever it is asked, and goes on after what isn't DNS."""

from __future__ import annotations

import socket
import time

import pytest

from tests.parts.dns_questions import NXDOMAIN, TXT, answering, code, question

pytestmark = pytest.mark.attack(backend="alone")

NAMES = {"egress": ["10.9.0.2"]}
SECRET = "tok-REAL-0123456789abcdef"


def test_dn1_no_name_makes_the_resolver_open_a_socket() -> None:
    with answering(NAMES) as resolver:
        resolver.ask(question("egress"))
        before = resolver.sockets()
        for number in range(200):
            assert code(resolver.ask(question(f"n{number}.example.com"))) == NXDOMAIN
            assert code(resolver.ask(question(f"n{number}.example.com", TXT))) == NXDOMAIN
        assert resolver.sockets() == before
        told = resolver.told()
    assert told[0]["host"] == "n0.example.com"


def test_dn2_a_secret_in_a_name_reaches_no_line() -> None:
    with answering(NAMES, [("API_TOKEN", SECRET)]) as resolver:
        assert code(resolver.ask(question(f"{SECRET}.cdn.example.com"))) == NXDOMAIN
        assert code(resolver.ask_by_stream(question(f"{SECRET.encode().hex()}.x"))) == NXDOMAIN
        told = resolver.told()
    assert told
    assert all(SECRET not in str(event) and SECRET.encode().hex() not in str(event) for event in told)


def test_dn3_by_stream_it_answers_the_same_and_nothing_else() -> None:
    with answering(NAMES) as resolver:
        assert resolver.ask_by_stream(question("egress")) == resolver.ask(question("egress"))
        assert code(resolver.ask_by_stream(question("example.com"))) == NXDOMAIN


def test_dn_a_connection_that_says_nothing_is_closed_and_others_go_on() -> None:
    with answering(NAMES) as resolver:
        began = time.monotonic()
        silent = [socket.create_connection(("127.0.0.1", resolver.port), 30) for _ in range(40)]
        assert code(resolver.ask(question("egress"))) == 0
        for line in silent:
            line.settimeout(30)
            assert line.recv(1) == b""
            line.close()
        assert time.monotonic() - began < 30
        assert code(resolver.ask_by_stream(question("egress"))) == 0


def test_dn_what_is_no_dns_does_not_end_it() -> None:
    with answering(NAMES) as resolver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            for data in (b"", b"\0", b"\xff" * 512, b"GET / HTTP/1.1\r\n\r\n", question("egress")[:20]):
                line.sendto(data, ("127.0.0.1", resolver.port))
        with socket.create_connection(("127.0.0.1", resolver.port), 10) as raw:
            raw.sendall(b"\xff\xff" + b"x" * 70000)
            raw.settimeout(10)
            try:
                assert raw.recv(1) == b""
            except ConnectionResetError:
                pass
        assert code(resolver.ask(question("egress"))) == 0
