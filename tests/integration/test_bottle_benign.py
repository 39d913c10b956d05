"""Ordinary traffic through a real gate: nothing is refused for its looks, and everything arrives as it was sent."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.parts.bottle_backends import scene
from tests.parts.egress_gate import EgressGate, route
from tests.parts.upstream_tls import Upstream

CASES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).parents[1] / "cases" / "egress" / "benign.yaml")
NAMES = ("token.test", "open.test")
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib3R0bGUtNzc2NiJ9.rT3kQ0mXv9LbW2yZc8PpA1sDfGhJkLzXcVbNm0QwErT"
KNOWN = [
    ("HELD", "held-secret-77665544"),
    ("DATABASE", "postgres://app:S3cr3tW0rdX9@db.example.com:5432/app"),
    ("SESSION", JWT),
]

TOKEN = "sk-ant-api03-Zx9Kq2LmN8vB4tR7yW1pS6dF3gH5jC0aQeUiOoPlMnBvCxZ-sdfgAA"
BOTTLE = """env:
  HELD: ${MY_HELD}
  DATABASE: ${MY_DATABASE}
  SESSION: ${MY_SESSION}
egress:
  routes:
    - host: token.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
    - {host: open.test, pipelock: {ssrf_ip_allowlist: [ADDRESS]}}
"""
SENDS = """
import base64, http.client
found['said'] = []
for host, target, method, body, headers in json.load(open('cases.json')):
    made = http.client.HTTPConnection(host, 443, timeout=30)
    made.sock, made.auto_open = tls(tunnel(host)[0], host), 0
    made.request(method, target, None if body is None else base64.b64decode(body), headers)
    answer = made.getresponse()
    found['said'].append([answer.status, answer.read().decode('latin-1')[:200]])
    made.close()
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream"), NAMES) as running:
        yield running


@pytest.fixture(scope="module")
def gate(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EgressGate]:
    with EgressGate(
        tmp_path_factory.mktemp("gate"),
        [route("token.test", prefixes=["/v1"], slot="EGRESS_TOKEN_0"), route("open.test")],
        dict.fromkeys(NAMES, (upstream.address, upstream.port)),
        upstream.ca,
        tokens={"EGRESS_TOKEN_0": TOKEN},
        known=KNOWN,
    ) as running:
        yield running


def body_of(case: dict[str, Any]) -> tuple[bytes | None, dict[str, str]]:
    """The bytes of a case and the headers they ask for."""
    noise = random.Random(case["name"])
    if "json" in case:
        return json.dumps(case["json"]).encode(), {"Content-Type": "application/json"}
    if "body" in case:
        return case["body"].encode(), {"Content-Type": "text/plain"}
    if "repeat" in case:
        text, times = case["repeat"]
        return (text * times).encode(), {"Content-Type": "text/plain"}
    if "random" in case:
        return noise.randbytes(case["random"]), {"Content-Type": "application/octet-stream"}
    if "base64" in case:
        data = {"data": base64.b64encode(noise.randbytes(case["base64"])).decode()}
        return json.dumps(data).encode(), {"Content-Type": "application/json"}
    if "zip" in case:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in case["zip"].items():
                archive.writestr(name, text)
        return out.getvalue(), {"Content-Type": "application/zip"}
    if "gzip" in case:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return gzip.compress(case["gzip"].encode(), mtime=0), headers
    return None, {}


def request_of(case: dict[str, Any]) -> tuple[str, str, str, bytes | None, dict[str, str]]:
    """Host, target, method, body and headers of a case."""
    body, headers = body_of(case)
    method = case.get("method", "GET" if body is None else "POST")
    host = "token.test" if case.get("token") else "open.test"
    return host, case["target"], method, body, {**headers, **case.get("headers", {})}


@pytest.mark.attack("DL20", backend="alone")
@pytest.mark.parametrize("case", CASES, ids=[each["name"].replace(" ", "-") for each in CASES])
def test_ordinary_traffic_arrives_as_it_was_sent(gate: EgressGate, upstream: Upstream, case: dict[str, Any]) -> None:
    upstream.requests.clear()
    host, target, method, body, headers = request_of(case)
    status, said = gate.ask(host, target, method, body, headers)
    assert status == 200, said
    (arrived,) = upstream.requests
    assert (arrived.method, arrived.path, arrived.body) == (method, target, body or b"")


@pytest.mark.attack("DL20", backend="docker")
@pytest.mark.timeout(240)  # it may start an engine too, and take it away
def test_it_arrives_from_a_container_as_well(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    rows = [request_of(case) for case in CASES]
    (tmp_path / "upstream").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cases.json").write_text(json.dumps([
        [host, target, method, None if body is None else base64.b64encode(body).decode(), headers]
        for host, target, method, body, headers in rows
    ]))  # fmt: skip
    with scene(request, "docker", tmp_path / "upstream", NAMES) as stage:
        bottles = stage.bottles(tmp_path / "home", dev=BOTTLE)
        bottles.root.agent("worker", "bottle: dev\n")
        bottles.cwd = tmp_path / "work"
        bottles.env = {"API_TOKEN": TOKEN} | {f"MY_{name}": value for name, value in KNOWN}
        ended = bottles.script("worker", SENDS, "--cwd")
        assert ended.code == 0, ended.stderr
        said = dict(zip((case["name"] for case in CASES), ended.answers["said"], strict=True))
        assert {name: why for name, (status, why) in said.items() if status != 200} == {}
        arrived = [(each.method, each.path, each.body) for each in bottles.upstream.requests]
    assert arrived == [(method, target, body or b"") for _, target, method, body, _ in rows]


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({each["name"] for each in CASES}) == len(CASES) >= 60
