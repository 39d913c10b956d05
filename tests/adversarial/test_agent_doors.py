"""Who one is comes from the door one came through, and nothing that is sent changes it. A bottle's leads nowhere."""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import load_config
from agent.door import ROUTES
from agent.errors import AgentUnable, BadConfig
from agent.unix_listener import bind_unix
from opsexec.steps.vocabulary import STEP_TYPES
from opsexec.verbs import VERBS
from opsexec.wire import REQUEST, frame
from tests.integration.conftest import require_root
from tests.parts.agent_bytes import answer, connected, get, post
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.unix_user import current_user

ME = f"unix:{current_user()}"
LINES = "Accept: application/x-ndjson"
BOTTLE = {"principal": "bottle:*", "capabilities": ["script.run:*", "git.*:*"]}


@pytest.fixture(scope="module")
def agent() -> Iterator[OpsAgent]:
    """An agent where this user may do everything, and a bottle has a socket."""
    everything = {"principal": ME, "capabilities": EVERYTHING, "run_as": ["*"]}
    with OpsAgent([everything, BOTTLE], bottles=["web"]) as running:
        yield running


def said_in(reply: bytes) -> dict[str, Any]:
    """The one line of a short answer."""
    head, _, body = reply.partition(b"\r\n\r\n")
    if b"chunked" in head:
        body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def request_of(step: dict[str, Any], **more: Any) -> bytes:
    return post(frame(REQUEST, msgspec.msgpack.encode({"run": secrets.token_hex(8), "step": step, **more})), LINES)


# -- a bottle's socket ------------------------------------------------------------------------------------------------

OPERATOR_STEPS = [str(kind.__struct_config__.tag) for kind in STEP_TYPES]


@pytest.mark.parametrize("name", sorted({*OPERATOR_STEPS, *VERBS, "", "exec\0", "EXEC", "x" * 500}))
def test_every_operator_verb_is_unknown_at_a_bottles_socket(agent: OpsAgent, name: str) -> None:
    # What stands beside the name would be an error of its own to whoever decoded the step.
    said = said_in(answer(agent.bottles["web"], request_of({"type": name, "argv": 5, "path": ["not a path"]})))
    assert said["error"]["message"] == f"unknown verb {name[:80]!r}"
    last = agent.records()[-1]
    assert (last["principal"], last["decision"], last["listener"]) == ("bottle:web", "deny", agent_listener(agent))


def agent_listener(agent: OpsAgent) -> str:
    return f"bottle:web:{agent.bottles['web']}"


def test_a_step_that_would_run_for_an_operator_runs_for_no_bottle(agent: OpsAgent, tmp_path: Path) -> None:
    touch = {"type": "exec", "argv": ["/usr/bin/touch", str(tmp_path / "ran")]}
    for more in ({}, {"detach": True}, {"check": True}):
        assert "unknown verb" in said_in(answer(agent.bottles["web"], request_of(touch, **more)))["error"]["message"]
    as_json = post(json.dumps({"step": touch}).encode(), LINES, "Content-Type: application/json")
    assert "takes frames" in said_in(answer(agent.bottles["web"], as_json))["error"]["message"]
    as_text = post(frame(REQUEST, msgspec.msgpack.encode({"run": "a" * 16, "step_text": json.dumps(touch)})), LINES)
    assert "not a request" in said_in(answer(agent.bottles["web"], as_text))["error"]["message"]
    assert not (tmp_path / "ran").exists()
    assert "result" in said_in(answer(agent.socket, request_of(touch)))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("method", "path"), sorted(set(ROUTES) - {("GET", "/v1/whoami"), ("POST", "/v1/steps")}))
def test_no_other_route_is_there_for_a_bottle(agent: OpsAgent, method: str, path: str) -> None:
    path = path.replace("*", "0123456789abcdef")
    reply = answer(agent.bottles["web"], get(path, LINES).replace(b"GET", method.encode(), 1))
    assert said_in(reply)["error"]["message"] == f"there is no '{method} {path}' here"


def test_a_bottle_is_told_who_it_is_and_no_more(agent: OpsAgent) -> None:
    found = said_in(answer(agent.bottles["web"], get("/v1/whoami", LINES)))["result"]["value"]
    assert found["principal"] == "bottle:web"
    assert found["grants"][0]["capabilities"] == sorted(BOTTLE["capabilities"])


def test_a_bottle_without_a_grant_is_nobody_here() -> None:
    with OpsAgent([{"principal": ME, "capabilities": EVERYTHING}], bottles=["web"]) as agent:
        said = said_in(answer(agent.bottles["web"], request_of({"type": "exec", "argv": ["/bin/true"]})))
    assert (said["error"]["code"], "bottle:web has no grant" in said["error"]["message"]) == ("denied", True)


def test_a_bottles_socket_is_reached_by_no_other_user(agent: OpsAgent) -> None:
    directory = agent.bottles["web"].parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory_of_its_own = directory.parent / "open"
    directory_of_its_own.mkdir(mode=0o755)
    with pytest.raises(AgentUnable, match="open to others"):
        bind_unix(str(directory_of_its_own / "agent.sock"), 0o600, None, private=True)
    assert list(directory_of_its_own.iterdir()) == []


@pytest.mark.parametrize(
    ("listen", "grant", "says"),
    [
        (["bottle:web:/run/a/agent.sock", "unix:/run/a/operator.sock"], BOTTLE, "lies in the directory of"),
        (["bottle:web:/run/a/agent.sock", "bottle:mail:/run/a/b/agent.sock"], BOTTLE, "lies in the directory of"),
        (["bottle:web:/run/a/agent.sock"], BOTTLE | {"principal": "bottle:mail"}, "no address is its socket"),
        (["bottle:web:/run/a/agent.sock"], BOTTLE | {"capabilities": ["exec:**"]}, "can't be granted exec"),
        (["bottle:web:/run/a/agent.sock"], BOTTLE | {"capabilities": ["fs.*:/srv/**"]}, "can't be granted fs."),
        (["bottle:web:/run/a/agent.sock"], BOTTLE | {"run_as": ["root"]}, "can't be granted another user"),
        (["unix:/run/a/agent.sock"], BOTTLE, "no listener proves bottle"),
        (["bottle:WEB:/run/a/agent.sock"], BOTTLE, "names no bottle"),
        (["bottle:web"], BOTTLE, "not an absolute"),
        (["bottle::/run/a/agent.sock"], BOTTLE, "names no bottle"),
        (["bottle:*:/run/a/agent.sock"], BOTTLE, "names no bottle"),
    ],
)
def test_a_configuration_that_would_let_a_bottle_out_is_refused(
    tmp_path: Path, listen: list[str], grant: dict[str, Any], says: str
) -> None:
    file = tmp_path / "config.toml"
    lines = ["[agent]", f"listen = {json.dumps(listen)}", 'state_dir = "/var/lib/ops-agent"', "[[grants]]"]
    file.write_text("\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in grant.items())]))
    with pytest.raises(BadConfig) as refused:
        load_config(file)
    assert says in refused.value.message


# -- nobody's requests ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed_agent() -> Iterator[OpsAgent]:
    """An agent that grants this user nothing."""
    with OpsAgent([{"principal": "unix:daemon", "capabilities": EVERYTHING}]) as running:
        yield running


BODIES = {
    "no body": b"",
    "a right step": frame(REQUEST, msgspec.msgpack.encode({"run": "a" * 16, "step": {"type": "facts"}})),
    "no frame": b"\xff" * 64,
    "no JSON": b"{{{{",
    "a long promise": b"\x01\x7f\xff\xff\xff",
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("method", "path"), [*sorted(ROUTES), ("POST", "/v1/nothing"), ("DELETE", "/v1/steps")])
def test_without_a_principal_that_is_granted_something_nothing_is_decoded(
    closed_agent: OpsAgent, method: str, path: str, body: str
) -> None:
    path = path.replace("*", "0123456789abcdef")
    # More is promised than comes: whoever read the body would wait for it.
    data = post(BODIES[body], LINES, path=path, length=len(BODIES[body]) + 1).replace(b"POST", method.encode(), 1)
    with connected(closed_agent.socket, 5) as link:
        link.sendall(data)
        reply = link.recv(65536)
    assert reply.startswith(b"HTTP/1.1 403"), reply
    assert f"{ME} has no grant".encode() in reply
    shown = [each["step"] for each in closed_agent.records() if each["decision"] == "deny"]
    assert {each["type"] for each in shown} <= {"request", "refusals.counted"}


# -- what is sent changes nobody --------------------------------------------------------------------------------------

HEADERS = [
    "X-Forwarded-For: 100.64.0.9", "X-Forwarded-User: root", "X-Forwarded-Host: root", "X-Forwarded-Proto: unix",
    "Forwarded: for=unix:root;by=root", "X-Real-IP: 127.0.0.1", "X-Remote-User: root", "Remote-User: root",
    "Tailscale-User-Login: root@example.com", "Tailscale-User-Name: root", "Tailscale-Caps: *",
    "Tailscale-Tags: tag:ci",
    "Authorization: Basic cm9vdDo=", "Authorization: Bearer root", "Proxy-Authorization: Basic cm9vdDo=",
    "Cookie: principal=unix:root", "From: root", "User-Agent: unix:root", "Origin: http://root", "Referer: http://root",
    "X-Principal: unix:root", "Ops-Principal: unix:root", "Ops-Listener: unix:/run/ops-agent/agent.sock",
    "Via: 1.1 root",
    "X-SSL-Client-S-DN: CN=root", "X-Bottle: mail", "X-HTTP-Method-Override: POST", "X-Original-URL: /v1/runs",
]  # fmt: skip
TARGETS = ["/v1/whoami?principal=unix:root", "http://root@agent/v1/whoami", "http://root/v1/whoami", "/v1/whoami#root"]
HOSTS = ["root", "unix:root", "bottle:mail", "localhost:0", "100.64.0.1:7227", "local-tailscaled.sock", "a,b", "[::1]"]


def principal_said(reply: bytes) -> str | None:
    """Whom the agent takes the caller for; None where it took the request for none."""
    if reply == b"" or not reply.startswith(b"HTTP/1.1 200"):
        return None
    return str(said_in(reply)["result"]["value"]["principal"])


@pytest.mark.parametrize("door", ["operator", "bottle"])
def test_no_header_host_or_target_changes_who_it_is(agent: OpsAgent, door: str) -> None:
    path, who = (agent.socket, ME) if door == "operator" else (agent.bottles["web"], "bottle:web")
    requests = [get("/v1/whoami", LINES, header) for header in HEADERS]
    requests += [get("/v1/whoami", LINES, *HEADERS)]
    requests += [get(target, LINES) for target in TARGETS]
    requests += [get("/v1/whoami", LINES).replace(b"Host: agent", f"Host: {host}".encode()) for host in HOSTS]
    proxied = b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x31, 0)
    requests += [b"PROXY UNKNOWN\r\n" + get("/v1/whoami", LINES), proxied + get("/v1/whoami", LINES)]
    before = len(agent.records())
    found = [principal_said(answer(path, request)) for request in requests]
    assert set(found) <= {who, None}
    assert found[: len(HEADERS) + 1] == [who] * (len(HEADERS) + 1)
    assert {each["principal"] for each in agent.records()[before:]} == {who}


def named(name: str) -> Callable[[socket.socket], None]:
    return lambda link: link.bind(name)


@pytest.mark.parametrize("name", ["\0unix:root", "\0bottle:mail", "tmp"])
def test_neither_a_clients_own_path_nor_made_up_credentials_change_who_it_is(
    agent: OpsAgent, tmp_path: Path, name: str
) -> None:
    require_root()  # nobody else may make up credentials at all
    own = str(tmp_path / "unix:daemon") if name == "tmp" else name
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        named(own)(link)
        link.connect(str(agent.socket))
        made_up = struct.pack("3i", os.getpid(), 1, 1)  # daemon's
        link.sendmsg([get("/v1/whoami", LINES)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, made_up)])
        reply = b""
        while block := link.recv(65536):
            reply += block
    assert principal_said(reply) == ME


def test_a_request_that_names_its_own_principal_is_no_request(agent: OpsAgent) -> None:
    for field in ("principal", "listener", "layer", "grants", "user"):
        said = said_in(
            answer(agent.socket, request_of({"type": "exec", "argv": ["/bin/true"]}, **{field: "unix:root"}))
        )
        assert said["error"]["code"] == "protocol", field
