"""The second hop: what its configuration says of a plan, and what egress makes of its answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bottle.errors import HostUnready
from bottle.pipelock import Pipelock, model, rendered
from bottle.plan import BottlePlan
from bottle.runtime import PIPELOCK, find_pipelock
from bottle.sidecars.egress.hop import Hop, NoWay
from tests.unit.test_bottle_plan import plan_of


def planned() -> BottlePlan:
    routes = [
        {"host": "a.x", "auth": {"scheme": "token", "token_ref": "T"}},
        {"host": "b.x", "pipelock": {"tls_passthrough": True, "ssrf_ip_allowlist": ["10.1.0.0/16", "10.2.0.9"]}},
        {"host": "c.x", "pipelock": {"ssrf_ip_allowlist": ["10.1.0.0/16"]}},
    ]
    provider = {"template": "claude", "auth_token": "TOK"}
    return plan_of({"agent_provider": provider, "egress": {"routes": routes}})


def test_it_mirrors_the_effective_routes_and_holds_no_secret() -> None:
    plan = planned()
    found = rendered(model(plan.egress.routes, ["supervise"]))
    assert found["api_allowlist"] == [*(route.host for route in plan.egress.routes), "supervise"]
    assert "api.anthropic.com" in found["tls_interception"]["passthrough_domains"]
    assert "b.x" in found["tls_interception"]["passthrough_domains"]
    assert "a.x" not in found["tls_interception"]["passthrough_domains"]
    assert found["ssrf"] == {"ip_allowlist": ["10.1.0.0/16", "10.2.0.9/32"]}
    assert (found["version"], found["mode"], found["enforce"]) == (1, "strict", True)
    assert found["forward_proxy"]["enabled"] is True
    assert "seed_phrase_detection" not in found
    assert "TOK" not in json.dumps(found)


def test_without_routes_it_allows_nothing() -> None:
    assert rendered(model([]))["api_allowlist"] == []


def test_what_was_rendered_is_read_again_as_it_was() -> None:
    config = model(planned().egress.routes)
    assert Pipelock.model_validate_json(json.dumps(rendered(config))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "audit"},
        {"enforce": False},
        {"version": 2},
        {"kill_switch": {}},
        {"api_allowlist": ["*.x"]},
        {"api_allowlist": ["10.0.0.1"]},
        {"api_allowlist": "a.x"},
        {"ssrf": {"ip_allowlist": ["10.1.2.3/8"]}},
        {"tls_interception": {"ca_key": "/elsewhere"}},
        {"dlp": {"scan_env": True}},
        {"forward_proxy": {"enabled": False}},
        {"request_body_scanning": {"max_body_bytes": 0}},
    ],
)
def test_a_shape_it_does_not_have_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pipelock.model_validate_json(json.dumps({**rendered(model([])), **change}))


def test_the_program_is_the_one_named_and_a_name_for_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pipelock"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(PIPELOCK, raising=False)
    assert find_pipelock() is None
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_pipelock() == str(program)
    monkeypatch.setenv(PIPELOCK, "")
    assert find_pipelock() is None
    monkeypatch.setenv(PIPELOCK, str(tmp_path / "other"))
    with pytest.raises(HostUnready):
        find_pipelock()


async def asked(tmp_path: Path, answer: bytes) -> tuple[bytes, str]:
    """What the hop was asked, and what came of that."""
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "address").write_text(f"127.0.0.1:{port}\n")
    async with server:
        try:
            line = await Hop(tmp_path / "address").tunnel(asyncio.get_running_loop(), "a.x", 443)
        except NoWay as error:
            return heard, str(error)
        line.close()
        return heard, "joined"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 Connection Established\r\n\r\n", "joined"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", "joined"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the second hop refused it (403)"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the second hop spoke before it was spoken to"),
        (b"HTTP/1.1 200 OK\r\n", "the second hop spoke before it was spoken to"),
        (b"SSH-2.0-x\r\n\r\n", "the second hop doesn't answer"),
        (b"", "the second hop doesn't answer"),
        (b"HTTP/1.1 200 " + b"x" * 40000, "the second hop spoke before it was spoken to"),
    ],
)
def test_only_a_plain_yes_joins(tmp_path: Path, answer: bytes, outcome: str) -> None:
    heard, found = asyncio.run(asked(tmp_path, answer))
    assert heard == b"CONNECT a.x:443 HTTP/1.1\r\nHost: a.x:443\r\n\r\n"
    assert found == outcome


@pytest.mark.parametrize("text", [None, "", "127.0.0.1:80", "10.0.0.1:80\n", "127.0.0.1:x\n"])
def test_without_an_address_nothing_is_dialed(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "address").write_text(text)

    async def dial() -> None:
        await Hop(tmp_path / "address").tunnel(asyncio.get_running_loop(), "a.x", 443)

    with pytest.raises(NoWay, match="the second hop is down"):
        asyncio.run(dial())
