"""mitmproxy goes on when a hook fails: each of the gate's hooks that fails half way has refused by then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_running import egress_environment

SCRIPT = r"""
import asyncio, sys
import bottle.sidecars.egress.lean
from mitmproxy import connection, http
from mitmproxy.proxy import server_hooks
from mitmproxy.test import tflow, tutils
from mitmproxy.websocket import WebSocketMessage
from bottle.sidecars.egress import addon, passing, search
from bottle.sidecars.egress.policy import Policy, Route

class Broken(Exception):
    pass

def fails(*_args, **_more):
    raise Broken

policy = Policy({"address": Route("address")})
gate = addon.Gate("b", {"S": "tok-REAL-0123456789"}, [], policy)
addon.search.find = addon.decide_request = addon.decide_connect = fails

def failed(hook, *args):
    try:
        found = hook(*args)
        if asyncio.iscoroutine(found):
            asyncio.run(found)
    except Broken:
        return
    raise SystemExit(f"{hook} didn't fail")

def refused(flow):
    return flow.response is not None and flow.response.status_code == 403

flow = tflow.tflow()
failed(gate.http_connect, flow)
assert refused(flow), "http_connect"
flow = tflow.tflow()
failed(gate.requestheaders, flow)
assert refused(flow), "requestheaders"
flow = tflow.tflow(req=tutils.treq(content=b"body"))
failed(gate.request, flow)
assert refused(flow), "request"
flow = tflow.tflow(resp=True)
flow.metadata["slot"] = "S"
addon.masked_head = fails
failed(gate.responseheaders, flow)
assert flow.response.stream(b"echo") == [], "responseheaders"
flow = tflow.twebsocketflow()
gate._tunnels[flow.client_conn.id] = ("address", 443)
flow.websocket.messages = [WebSocketMessage(1, True, b"said")]
failed(gate.websocket_message, flow)
assert flow.websocket.messages[-1].dropped, "websocket_message"
data = server_hooks.ServerConnectionHookData(server=flow.server_conn, client=flow.client_conn)
gate._tunnels = None
try:
    gate.server_connect(data)
except AttributeError:
    pass
assert data.server.error, "server_connect"
print("closed")
"""


@pytest.mark.attack("PX30", backend="alone")
def test_a_hook_that_fails_half_way_has_refused() -> None:
    python = egress_environment() / "bin" / "python"
    require(python, "needs the egress gate's environment (scripts/setup.sh)")
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(python), "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.endswith("closed\n"), done.stderr
