"""What a new policy doesn't admit any more is cut, on every kind of connection; the rest goes on."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from tests.parts.egress_gate import EgressGate, route
from tests.parts.lone_gate import ROUTES
from tests.parts.raw_frames import ended, frame, h2_frame, h2_get, h2_status, web_socket
from tests.parts.upstream_tls import Upstream

pytestmark = [pytest.mark.attack(backend="alone"), pytest.mark.usefixtures("whole_gate")]


class TestReload:
    """What a new policy doesn't admit any more is cut; what it says the same of goes on."""

    @pytest.fixture(autouse=True)
    def back(self, gate: EgressGate, whole_gate: None) -> Iterator[None]:
        yield
        gate.reload(ROUTES)

    def test_a_kept_connection_whose_route_is_gone_is_cut_and_the_others_stay(self, gate: EgressGate) -> None:
        gone, kept = gate.client("other.test"), gate.client("open.test")
        for client in (gone, kept):
            client.request("GET", "/before")
            assert client.getresponse().read()
        gate.reload([each for each in ROUTES if each["host"] != "other.test"])
        assert was_cut(gone)
        kept.request("GET", "/after")
        assert kept.getresponse().status == 200
        kept.close()
        gone.close()

    def test_a_route_that_is_there_still_and_says_less_cuts_too(self, gate: EgressGate) -> None:
        client = gate.client("open.test")
        client.request("GET", "/before")
        assert client.getresponse().read()
        gate.reload([route("open.test", prefixes=["/v1"]) if each["host"] == "open.test" else each for each in ROUTES])
        assert was_cut(client)
        client.close()
        assert gate.ask("open.test", "/after")[0] == 403

    def test_a_tunnel_that_nothing_was_said_in_is_cut(self, gate: EgressGate) -> None:
        made, said = gate.tunnel("other.test")
        assert " 200 " in said
        gate.reload([])
        with made:
            assert made.recv(1) == b""

    def test_a_web_socket_is_cut_and_one_of_a_kept_route_is_not(self, gate: EgressGate, upstream: Upstream) -> None:
        gone, kept = web_socket(gate, "other.test"), web_socket(gate, "open.test")
        for stream in (gone, kept):
            stream.sendall(frame(0x1, b"before"))
            assert stream.recv(4096).endswith(b"before")
        gate.reload([each for each in ROUTES if each["host"] != "other.test"])
        assert ended(gone)
        kept.sendall(frame(0x1, b"after"))
        assert kept.recv(4096).endswith(b"after")
        gone.close()
        kept.close()
        assert upstream.messages == [b"before", b"before", b"after"]

    def test_http2_is_cut(self, gate: EgressGate) -> None:
        stream = gate.tls("other.test", ["h2"])
        assert stream.selected_alpn_protocol() == "h2"
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0) + h2_get(1, "other.test", "/before"))
        assert h2_status(stream) == 0x88
        gate.reload([])
        assert ended(stream)
        stream.close()

    def test_an_answer_that_is_still_coming_is_cut(self, gate: EgressGate, upstream: Upstream) -> None:
        upstream.seen.clear()
        client = gate.client("other.test")
        client.request("GET", "/events")
        answer = client.getresponse()
        assert answer.readline() == b"data: first\n"
        gate.reload([])
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.read()
        upstream.seen.set()
        client.close()


def was_cut(client: http.client.HTTPConnection) -> bool:
    """True when a kept connection takes no other request."""
    try:
        client.request("GET", "/after")
        client.getresponse()
    except (OSError, http.client.HTTPException):
        return True
    return False
