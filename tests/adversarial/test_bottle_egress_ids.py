"""What an agent tries to get past the egress gate with: one bottle tries it all, and the upstream tells what arrived.

It is tried on each backend: over a socket in the same file system, and over the network of a container engine.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsexec.far.known_values import spellings
from tests.parts.bottle_backends import BACKENDS, scene
from tests.parts.bottle_running import HELD, TOKEN, Bottles
from tests.parts.upstream_tls import Arrived, RequestHandler, Upstream, plain_handler

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

NAMES = ("api.test", "second.test", "open.test", "read.test", "forge.test", "inside.test")
GRANTED = "pipelock: {ssrf_ip_allowlist: [ADDRESS]}"
BOTTLE = f"""env:
  HELD: ${{MY_HELD}}
egress:
  routes:
    - {{host: api.test, path_allowlist: [/v1], auth: {{scheme: Bearer, token_ref: API_TOKEN}}, {GRANTED}}}
    - {{host: second.test, path_allowlist: [/two], auth: {{scheme: token, token_ref: API_TOKEN}}, {GRANTED}}}
    - {{host: open.test, {GRANTED}}}
    - {{host: read.test, methods: [GET, HEAD], query_allowlist: [page], {GRANTED}}}
    - {{host: forge.test, path_allowlist: [/repos/own/site/contents], methods: [GET, PUT], {GRANTED}}}
    - {{host: inside.test}}
"""

SCRIPT = (Path(__file__).parents[1] / "cases" / "egress_attempts.txt").read_text("utf-8")

REFUSED = [
    "DN2", "DN2_dots", "DN4_doh", "DN4_dot", "DN7", "IP7", "IP8", "IP9", "IP12", "IP12_name", "IP12_six",
    "IP12_alibaba", "IP12_azure", "IP5_mapped", "PX12_fragment", "PX12_port", "PX2_smtp", "PX8_underscore",
    "PX8_idn", "PX8_upper", "PX8_dot", "PX8_address", "PX8_lookalike", "PX4", "PX4_binary", "PX9_ech", "PX9_grease",
    "PX20", "PA3", "PA9", "PA10", "PA10_crlf", "PA13", "PA13_slash", "PA15", "PA15_semicolon", "PA15_escaped",
    "PA16", "PA16_get", "PA17_merge", "PA17_automerge", "PA17_review", "PA17_dispatch", "PA17_hook", "PA17_key",
    "PA17_gist", "PA17_delete", "GI57", "DL18_npm", "DL18_pypi", "DL18_image", "CR5", "CR6_query", "CR7_other", "DL1",
    "DL2_b64", "DL2_url", "DL3", "DL3_lower", "DL4", "DL4_list", "DL5", "DL6", "DL6_more", "DL7", "DL7_wide",
    "DL7_combining", "DL9", "DL9_qp", "DL11", "DL11_headers", "DL11_segments", "DL12", "DL12_b64", "DL14_text",
    "DL14_ztxt", "DL14_exif", "DL14_pdf", "DL14_zip", "DL14_nested", "DL14_name", "DL14_inline", "DL15",
    "DL15_utf16", "DL19", "DL19_etag"
]  # fmt: skip


def handler(upstream: Upstream) -> type[RequestHandler]:
    """An upstream that also reflects the credential, sends the agent elsewhere, and doesn't take a token any more."""
    base = plain_handler(upstream)

    class Handler(base):  # type: ignore[misc,valid-type] # a class that is made for each upstream
        def answer(self) -> None:
            part = self.path.rpartition("/")[2]
            if "/ok/reflect/" in self.path:
                self.reflect(part)
            elif "/ok/redirect/" in self.path:
                places = {
                    "evil": "https://evil.test/",
                    "inside": "https://inside.test/",
                    "cleartext": "http://open.test/",
                    "address": f"https://{upstream.address}:{upstream.port}/",
                }
                self.say(302, b"", location=places[part])
            elif part == "expired":
                self.say(401, b'{"error": "expired"}')
            else:
                super().answer()

        def reflect(self, how: str) -> None:
            import base64
            import zlib
            from urllib.parse import quote

            text = self.headers.get("authorization", "")
            token = text.rpartition(" ")[2].encode()
            bodies = {
                "plain": text.encode(),
                "b64": base64.b64encode(b"ab" + token),
                "hex": token.hex().encode(),
                "url": "".join(f"%{byte:02x}" for byte in token).encode(),
                "reversed": token[::-1],
                "base32": base64.b32encode(token),
                "gzip": gzip.compress(text.encode()),
                "deflate": zlib.compress(text.encode()),
                "split": text.encode(),
                "header": quote(text).encode(),
            }
            encoding = {"content-encoding": how} if how in ("gzip", "deflate") else {}
            echo = {"set-cookie": f"echo={token.decode()}", "x-echo": text} if how == "header" else {}
            self.say(200, bodies[how], pieces=how == "split", **encoding, **echo)

        def say(self, status: int, body: bytes, *, pieces: bool = False, **headers: str) -> None:
            arrived = Arrived(self.command, self.path, list(self.headers.items()), b"")
            upstream.requests.append(arrived)
            self.send_response(status, "reason" if status != 200 else self.headers.get("authorization", "OK"))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            for at in range(0, len(body), 5 if pieces else max(1, len(body))):
                self.wfile.write(body[at : at + (5 if pieces else len(body))])
                self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = answer

    return Handler


@dataclass
class Tried:
    """What the agent says of it, and what there is outside."""

    answers: dict[str, Any]
    arrived: list[Arrived]
    connections: int
    denied: list[dict[str, Any]]
    said: str
    messages: list[bytes]

    def at(self, path: str) -> Arrived:
        """The one request that arrived there."""
        (found,) = (each for each in self.arrived if each.path == path)
        return found


@pytest.fixture(scope="module", params=BACKENDS)
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    with scene(request, request.param, tmp_path_factory.mktemp("upstream"), NAMES, handler) as stage:
        found = stage.bottles(tmp_path_factory.mktemp("home") / "root", dev=BOTTLE)
        found.root.agent("worker", "bottle: dev\n")
        yield found


@pytest.fixture(scope="module")
def tried(bottles: Bottles) -> Tried:
    upstream = bottles.upstream
    ended = bottles.script("worker", SCRIPT.replace("ADDRESS", upstream.address).replace("PORT", str(upstream.port)))
    assert ended.code == 0, ended.stderr
    denied = [each for each in bottles.audit(ended.identity) if each["decision"] == "deny"]
    said = ended.stdout + ended.stderr
    return Tried(ended.answers, list(upstream.requests), upstream.connections, denied, said, list(upstream.messages))


@pytest.mark.parametrize("attack", REFUSED)
def test_it_is_refused_and_nothing_of_it_arrives(tried: Tried, attack: str) -> None:
    status, said = tried.answers["refused"][attack]
    assert status in (0, 400, 403), said
    assert status == 403 or attack[:2] not in ("DL", "PA") or attack.startswith("DL12"), said
    assert [each.path for each in tried.arrived if "/ok/" not in each.path and each.path != "/ws"] == []
    assert tried.messages == []


def test_nothing_is_tried_that_isn_t_looked_at(tried: Tried) -> None:
    assert set(tried.answers["refused"]) == set(REFUSED)
    assert len(tried.denied) >= len([each for each in tried.answers["refused"].values() if each[0] == 403])


@pytest.mark.parametrize("attack", ["IP15_udp", "IP15_sctp", "PX1", "PX1_address"])
def test_there_is_no_other_way_out(tried: Tried, attack: str) -> None:
    came = tried.answers["unreachable"][attack]
    assert "connected" not in came
    assert "Error" in came or "refused" in came or "rrno" in came or "failure" in came


def test_cr3_a_placeholder_is_not_replaced_where_it_doesn_t_belong(tried: Tried) -> None:
    assert tried.answers["sent"]["CR3"][0] == 200
    arrived = tried.at("/ok/cr3")
    assert arrived.header("authorization") == []
    assert TOKEN not in repr(arrived)


def test_cr6_accounts_of_the_agent_s_own_are_taken_off(tried: Tried) -> None:
    arrived = tried.at("/v1/ok/cr6")
    assert arrived.header("authorization") == [f"Bearer {TOKEN}"]
    assert "mine" not in repr(arrived.headers)


def test_cr7_two_routes_with_one_credential_keep_their_own_rules(tried: Tried) -> None:
    assert tried.at("/two/ok/cr7").header("authorization") == [f"token {TOKEN}"]
    assert tried.answers["refused"]["CR7_other"][0] == 403


def test_cr8_a_token_that_isn_t_taken_any_more_is_tried_once(tried: Tried) -> None:
    assert tried.answers["sent"]["CR8"] == [401, '{"error": "expired"}']
    assert tried.at("/v1/ok/expired").header("authorization") == [f"Bearer {TOKEN}"]


def test_px26_an_echo_is_masked_in_every_spelling(tried: Tried) -> None:
    echoes = tried.answers["sent"]["PX26"]
    assert len(echoes) == 10
    for spelled in spellings(TOKEN.encode()):
        assert spelled.decode("latin-1") not in "".join(echoes)
    assert all("*" * len(TOKEN) in each for each in (echoes[0], echoes[6], echoes[7], echoes[8], echoes[9]))


@pytest.mark.parametrize("attack", ["PX25_evil", "PX25_inside", "PX25_cleartext", "PX25_address"])
def test_a_redirect_is_judged_as_any_request(tried: Tried, attack: str) -> None:
    assert tried.answers["sent"][attack][0] in (0, 403, 502)
    assert len([each for each in tried.arrived if "/ok/redirect/" in each.path]) == 4


def test_ordinary_work_goes_on(tried: Tried) -> None:
    assert tried.answers["sent"]["after"][0] == 200
    assert TOKEN not in tried.said
    assert TOKEN not in json.dumps(tried.denied)
    assert HELD not in json.dumps(tried.denied)


@pytest.mark.xfail(strict=True, reason="a few bytes a request are told from nothing: grant fewer hosts")
def test_dl16_a_value_that_drips_is_stopped(tried: Tried) -> None:
    assert len([each for each in tried.arrived if "/ok/drip/" in each.path]) < len(HELD) // 3


@pytest.mark.xfail(strict=True, reason="the order and the time of requests carry what they like")
def test_dl17_the_order_of_requests_says_nothing(tried: Tried) -> None:
    bits = "".join(each.path[-1] for each in tried.arrived if "/ok/order/" in each.path)
    assert bits != format(ord(HELD[0]), "08b")


def test_cr12_each_launch_has_an_authority_of_its_own(bottles: Bottles, tried: Tried) -> None:
    ended = bottles.run("worker", ["/bin/true"])
    assert ended.code == 0, ended.stderr
    found = {path.read_text() for path in (bottles.root.path / "state").glob("*/guest/ca.pem")}
    assert len(found) == 2
