"""One test an attack, by its id: one bottle tries them all, and each outcome is told by what stands outside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.bottle_backends import BACKENDS, Name, scene
from tests.parts.bottle_running import HELD, TOKEN, written_with
from tests.parts.upstream_tls import Upstream

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

BOTTLE = """env:
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

AT_THE_GATE = {
    "DN7": "evil host",
    "IP1": "address",
    "PX2": "other port",
    "PX2_git": "git port",
    "PX8_case": "upper case",
    "PX8_dot": "trailing dot",
    "PX8_none": "no SNI",
    "PX12": "userinfo",
    "PX28": "cleartext",
    "PX6": "cleartext steering",
    "PX24": "cleartext",
    "PX32": "onboarding page",
    "PX27": "proxy itself",
    "PX7": "foreign SNI",
    "PX5": "steered host",
    "PX5_twice": "two hosts",
    "PX11": "absolute form",
    "PX15": "tunnel in a tunnel",
    "PX22": "trace",
    "PA1": "dot segments",
    "PA2": "encoded dots",
    "PA4": "encoded slash",
    "PA5": "backslash",
    "PA7": "double slash",
    "PA12": "case",
    "CR6": "account in query",
    "PX22_override": "method override",
    "PX5_forwarded": "routing header",
}
NOT_HTTP = {
    "PX3": "raw TCP",
    "PX17": "HTTP/0.9",
    "PX19": "two lengths",
    "PX19_fold": "folded header",
    "PX19_nul": "NUL in a name",
    "PX19_space": "space in a name",
}
HTTP2 = {
    "PX13": "foreign authority",
    "PX12_h2": "userinfo",
    "PX13_host": "second host",
    "PX15_connect": "tunnel",
    "PX15_extended": "extended tunnel",
    "PA1_h2": "dots",
    "PX19_path": "no path",
    "PX19_break": "line break",
    "PX19_upper": "upper case",
    "PX19_connection": "connection header",
    "PX19_length": "wrong length",
}
ADDRESSES = {"IP2": ("four", 0), "IP1_raw": ("four", 1), "NB1_NB2": ("four", 2), "IP12": ("four", 3)}
MORE = {
    "IP5": ("six", 0),
    "IP3": ("six", 1),
    "IP4": ("six", 2),
    "DN3": ("datagrams", 0),
    "DN5": ("datagrams", 1),
    "DN1": ("resolvers", 0),
    "DN4": ("lookup", 0),
    "IP13": ("raw", 0),
    "IP14": ("raw", 1),
}


@dataclass
class Attacked:
    """What the agent says came of its attempts, and what there is outside."""

    answers: dict[str, Any]
    upstream: Upstream
    denied: list[dict[str, Any]]
    root: Path
    said: str
    backend: str


@pytest.fixture(scope="module", params=BACKENDS)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacking(request, request.param, tmp_path_factory) as found:
        yield found


@contextmanager
def attacking(
    request: pytest.FixtureRequest, backend: Name, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    """One bottle on a backend, and what came of everything that its agent tried."""
    names = ("api.test", "open.test", "inside.test")
    with scene(request, backend, tmp_path_factory.mktemp("upstream"), names) as stage:
        upstream = stage.upstream
        bottles = stage.bottles(tmp_path_factory.mktemp("home") / "root", dev=BOTTLE)
        root = bottles.root
        root.agent("worker", "bottle: dev\n")
        ended = bottles.script(
            "worker",
            f"""
import base64
port = {upstream.port}
held = os.environ['HELD']
found = {{'gate': past_the_gate(port), 'odd': not_http(port), 'around': around_the_gate(port)}}
found['h2'] = in_http2()
found['inside'] = get('https://inside.test/')
found['values'] = {{
    'DL1': get('https://open.test/', held.encode())[0],
    'DL2': get('https://open.test/', base64.b64encode(b'ab' + held.encode()))[0],
    'DL4': get('https://open.test/', held.encode().hex(':').encode())[0],
    'DL5': get('https://open.test/?' + ''.join('%25' + format(each, '02x') for each in held.encode()))[0],
    'DL7': get('https://open.test/', '\\u200b'.join(held).encode())[0],
    'DL9': get('https://open.test/', b'x', {{'Content-Type': 'multipart/form-data; boundary=' + held}})[0],
    'DL11': get('https://open.test/' + '/'.join(held[at:at + 5] for at in range(0, len(held), 5)))[0],
    'DL19': get('https://open.test/', None, {{'User-Agent': held, 'If-None-Match': 'x'}})[0],
    'CR5': get('https://open.test/', None, {{'X-Note': base64.b64encode(('u:' + held).encode()).decode()}})[0],
}}
found['environ'] = readable('environ') + readable('cmdline')
found['sandbox'] = out_of_the_sandbox()
""",
        )
        assert ended.code == 0, ended.stderr
        denied = [each for each in bottles.audit(ended.identity) if each["decision"] == "deny"]
        yield Attacked(ended.answers, upstream, denied, root.path, ended.stdout + ended.stderr, stage.backend)


@pytest.fixture(autouse=True)
def nothing_arrived(attacked: Attacked) -> None:
    """Whatever the agent says: the upstream saw no request and no token, in this whole module."""
    assert attacked.upstream.requests == []


@pytest.mark.parametrize("attack", AT_THE_GATE)
def test_refused_at_the_gate(attacked: Attacked, attack: str) -> None:
    assert attacked.answers["gate"][AT_THE_GATE[attack]].startswith(("HTTP/1.1 403", "HTTP/1.1 400"))


@pytest.mark.parametrize("attack", HTTP2)
def test_refused_in_http2_too(attacked: Attacked, attack: str) -> None:
    assert attacked.answers["h2"][HTTP2[attack]] in ("another status", "reset", "goodbye", "closed")


@pytest.mark.parametrize("attack", NOT_HTTP)
def test_what_is_no_single_http_request_goes_nowhere(attacked: Attacked, attack: str) -> None:
    assert "200 OK" not in attacked.answers["odd"][NOT_HTTP[attack]]


@pytest.mark.parametrize("attack", [*ADDRESSES, *MORE])
def test_there_is_no_way_around_the_gate(attacked: Attacked, attack: str) -> None:
    kind, at = {**ADDRESSES, **MORE}[attack]
    came = attacked.answers["around"][kind][at]
    assert came != "connected"
    assert not came.startswith(("b'", "<socket", "'"))


@pytest.mark.parametrize("attack", ["DL1", "DL2", "DL4", "DL5", "DL7", "DL9", "DL11", "DL19", "CR5"])
def test_a_value_of_the_bottle_doesn_t_leave(attacked: Attacked, attack: str) -> None:
    assert attacked.answers["values"][attack] == 403


def test_dn8_a_name_that_leads_inside_is_refused(attacked: Attacked) -> None:
    assert attacked.answers["inside"][0] in (0, 502)
    assert any("isn't public" in each["reason"] for each in attacked.denied)


def test_each_refusal_at_the_gate_is_a_line_of_the_audit(attacked: Attacked) -> None:
    gate, odd, values = (len(attacked.answers[name]) for name in ("gate", "odd", "values"))
    assert len(attacked.denied) >= gate + odd + values


def test_cr1_no_credential_is_in_any_process_file_or_word(attacked: Attacked) -> None:
    assert TOKEN not in "".join(attacked.answers["environ"]) + attacked.said
    assert written_with(attacked.root, TOKEN.encode()) == []
    assert written_with(attacked.root, HELD.encode()) == []


def test_cr10_the_ca_s_key_is_in_no_file(attacked: Attacked) -> None:
    assert written_with(attacked.root, b"PRIVATE KEY") == []


def test_es1_cr11_nothing_outside_its_home_is_written(attacked: Attacked) -> None:
    assert set(attacked.answers["sandbox"]["written"]) <= {"PermissionError", "OSError", "FileNotFoundError"}


def test_es2_es4_no_namespace_no_capability_no_new_privilege(attacked: Attacked) -> None:
    sandbox = attacked.answers["sandbox"]
    assert sandbox["user namespace"] != 0
    assert set(sandbox["capabilities"]) == {"0000000000000000"}
    assert sandbox["no new privileges"]


def test_nb8_nb9_no_socket_of_the_host_is_in_sight(attacked: Attacked) -> None:
    # An image has places of its own by these names.
    own = set() if attacked.backend == "bwrap" else {"/root", "/sys", "/etc/shadow"}
    assert set(attacked.answers["sandbox"]["seen"]) <= own


def test_es10_it_has_no_terminal_to_type_into(attacked: Attacked) -> None:
    assert attacked.answers["sandbox"]["terminal"] == "OSError"
