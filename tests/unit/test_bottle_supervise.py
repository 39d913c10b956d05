"""The supervise server without a door: whatever is said to it is answered, and nothing but a question comes of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.sidecars.supervise.config import KINDS, read_config
from bottle.sidecars.supervise.desk import MAX_REMEMBERED, Desk
from bottle.sidecars.supervise.protocol import VERSIONS, Server
from bottle.sidecars.supervise.said import Refusals
from bottle.sidecars.supervise.tools import BadCall, fitting, listed

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
methods = st.sampled_from(["initialize", "ping", "tools/list", "tools/call", "tools/cancel", "", "approve"])
readers = st.sampled_from(["list_routes", "proposal_status", "approve", "", "propose_nothing"])


def server(offered: tuple[str, ...] = KINDS) -> tuple[Server, Desk]:
    """A server, and the desk behind it."""
    desk = Desk(0.01, ({"host": "a.test", "path_allowlist": None, "credential": False},))
    return Server(desk, offered), desk


def answer(body: bytes, offered: tuple[str, ...] = KINDS) -> dict[str, Any] | None:
    """What is said to a body."""

    async def ask() -> dict[str, Any] | None:
        return await server(offered)[0].answer(body)

    return asyncio.run(ask())


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_for_an_answer(body: bytes) -> None:
    said = answer(body)
    assert said is None or "error" in said or "result" in said


@given(identity=values, method=methods | values, params=values)
def test_no_message_is_too_odd_for_an_answer(identity: Any, method: Any, params: Any) -> None:
    said = answer(json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": params}).encode())
    assert said is None or "error" in said or "result" in said


@given(name=readers, arguments=values)
def test_no_call_is_too_odd_for_an_answer(name: str, arguments: Any) -> None:
    params = {"name": name, "arguments": arguments}
    said = answer(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode())
    assert said is not None


def test_what_cannot_be_carried_out_here_is_not_offered_and_cannot_be_called() -> None:
    names = [tool["name"] for tool in listed(("route",))]
    assert names == ["list_routes", "propose_route", "proposal_status"]
    params = {"name": "propose_capability_change", "arguments": {"read_only": "/opt/x", "why": "w"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    said = answer(body, ("route",))
    assert said is not None
    assert said["error"]["code"] == -32602


@pytest.mark.parametrize("asked", [*VERSIONS, "2026-07-28", "", None, 7, ["x"]])
def test_a_client_is_met_at_its_revision_or_at_the_newest_known(asked: Any) -> None:
    said = answer(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": asked}}).encode()
    )
    assert said is not None
    assert said["result"]["protocolVersion"] == (asked if asked in VERSIONS else VERSIONS[-1])


@pytest.mark.parametrize("tool", listed(KINDS), ids=lambda tool: tool["name"])
def test_arguments_are_held_to_the_schema_that_is_listed(tool: dict[str, Any]) -> None:
    schema = tool["inputSchema"]
    odd: list[Any] = [[], "x", 1, {"more": 1}, dict.fromkeys(schema["properties"], 7.5) or {"x": 1}]
    for wrong in (*odd, {"why": "x\ny"}, {"why": ""}):
        with pytest.raises(BadCall):
            fitting(wrong, schema, "arguments")


def test_a_key_that_no_tool_has_is_named_and_draws_nothing() -> None:
    (tool,) = [each for each in listed(KINDS) if each["name"] == "propose_route"]
    with pytest.raises(BadCall, match="arguments has the unknown key 'path'; there are: host, path_allowlist, why"):
        fitting({"host": "a.test", "path": ["/a"], "why": "w"}, tool["inputSchema"], "arguments")
    with pytest.raises(BadCall) as caught:
        fitting({"\x1b[2J\ud800" + "x" * 5000: 1}, tool["inputSchema"], "arguments")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
    (tool,) = [each for each in listed(KINDS) if each["name"] == "list_routes"]
    with pytest.raises(BadCall, match="'all'; there are: none"):
        fitting({"all": True}, tool["inputSchema"], "arguments")


def test_a_decision_wakes_the_call_that_waits_and_only_for_its_own_proposal() -> None:
    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        desk = Desk(5.0, ())
        for number in (1, 2):
            await desk.news(json.dumps({"decided": number, "status": "pending", "reason": ""}).encode())
        waiting = asyncio.create_task(desk.status(1))
        await asyncio.sleep(0)
        await desk.news(b'{"decided": 1, "status": "rejected", "reason": "no"}')
        first = await asyncio.wait_for(waiting, 20)
        quick = Desk(0.01, ())
        await quick.news(b'{"decided": 2, "status": "pending", "reason": ""}')
        return first, await quick.status(2)

    first, second = asyncio.run(run())
    assert (first["status"], first["reason"]) == ("rejected", "no")
    assert second["status"] == "pending"


def test_what_is_remembered_has_a_bound() -> None:
    async def run() -> Desk:
        desk = Desk(0.01, ())
        for number in range(1, 2 * MAX_REMEMBERED):
            await desk.news(json.dumps({"decided": number, "status": "approved", "reason": ""}).encode())
        assert (await desk.status(1))["status"] == "unknown"
        assert (await desk.status(2 * MAX_REMEMBERED - 1))["status"] == "approved"
        return desk

    asyncio.run(run())


def test_a_refusal_is_said_at_the_powers_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Refusals()
    for _ in range(1000):
        refused("an Origin")
    counts = [json.loads(line)["count"] for line in capsys.readouterr().out.splitlines()]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("change", [{"wait_s": 0}, {"wait_s": 4000}, {"offered": ["decide"]}, {"more": 1}])
def test_a_configuration_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    fits = {"socket": "/x", "door": "127.0.0.1:8879", "wait_s": 30, "offered": ["route"], "routes": []}
    assert read_config(json.dumps(fits).encode()).wait_s == 30
    with pytest.raises(ValueError, match="configuration"):
        read_config(json.dumps({**fits, **change}).encode())
