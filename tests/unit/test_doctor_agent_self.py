"""agent.*: whose word identities rest on, and the whole audit chain, over recorded words and real audit files."""

from __future__ import annotations

import json

import pytest

from agent.services.checks import agent_self
from agent.services.doctor import Request, examine
from agent.services.probe import Probe
from opsexec.audit.segment import closed_segments
from opsexec.testing import Answer, FakeHost, FakeNode, fake_executor
from tests.parts.fake_localapi import SELF, whois_answer
from tests.unit.audit_lines import write_log
from tests.unit.test_doctor_engine import FACTS

pytestmark = pytest.mark.anyio
STATE = "/var/lib/ops-agent"
SOCKET = "/run/ts/tailscaled.sock"
CONFIG = f"""
[agent]
listen = ["tailnet:7227"]
state_dir = "{STATE}"
[tailnet]
socket = "{SOCKET}"
[[grants]]
principal = "tailnet:alice@example.com"
capabilities = ["facts:*"]
"""
STATUS = {"BackendState": "Running", "TUN": True, "Self": SELF, "Peer": {}}
OWN = whois_answer(Name="here.tail.test.", StableID="n-self", Addresses=["100.64.0.9/32"])
ASK_STATUS = f"tailscale --socket={SOCKET} status --json --peers=false"
ASK_WHOIS = f"tailscale --socket={SOCKET} whois --json 100.64.0.9"


async def look(only, *, files=None, answers=None, fsync=0):
    known = {"/etc/ops-agent/config.toml": FakeNode("file", data=CONFIG.encode(), mode=0o600), **(files or {})}
    said = {**(answers or {}), f"sync {STATE}": fsync}
    host = FakeHost(files=known, answers=said, facts=FACTS, dirs=[STATE, "/run/ts"])
    socket = FakeNode("file")
    socket.kind = "socket"
    host.tree.nodes[SOCKET] = socket
    async with fake_executor(host) as ex:
        found = await examine(ex, Request("local-runtime", (only,)))
    return next(each for each in found.findings if each.id == only)


async def tailnet(status=STATUS, whois=OWN):
    as_answer = [each if isinstance(each, Answer) else json.dumps(each) for each in (status, whois)]
    return await look("agent.tailnet", answers={ASK_STATUS: as_answer[0], ASK_WHOIS: as_answer[1]})


OF_A_USER = CONFIG.replace("tailnet:7227", "unix:/run/a/s").replace("tailnet:alice@example.com", "unix:deploy-there")
DEPLOY = b"root:x:0:0:root:/root:/bin/sh\ndeploy-there:x:1000:1000::/home/d:/bin/sh\n"


@pytest.mark.parametrize(
    ("config", "passwd", "verdict"),
    [
        (OF_A_USER.encode(), DEPLOY, "pass"),
        (OF_A_USER.encode(), b"root:x:0:0:root:/root:/bin/sh\n", "unknown"),  # another name service may have it
        (OF_A_USER.encode().replace(b"deploy-there", b"nobody"), b"nobody:x:65534:65534::/:/bin/false\n", "fail"),
        (CONFIG.encode() + b"# \xff\n", DEPLOY, "fail"),
    ],
)
async def test_a_config_is_judged_by_its_own_hosts_users_and_as_its_agent_reads_it(config, passwd, verdict):
    files = {"/etc/ops-agent/config.toml": FakeNode("file", data=config, mode=0o600)}
    found = await look("agent.config", files={**files, "/etc/passwd": FakeNode("file", data=passwd)})
    assert found.verdict == verdict, found.summary


async def test_a_tailscaled_that_knows_this_node_passes():
    found = await tailnet()
    assert (found.verdict, found.summary) == ("pass", "tailscaled knows this node as here.tail.test")


@pytest.mark.parametrize(
    ("status", "whois", "verdict"),
    [({**STATUS, "BackendState": "NeedsLogin"}, OWN, "fail"), ({}, OWN, "fail"),
     (Answer(stdout=b"garbage"), OWN, "fail"), (Answer(exit_code=1), OWN, "fail"),
     (Answer(missing=True), OWN, "unknown"),
     ({**STATUS, "Self": {**SELF, "TailscaleIPs": []}}, OWN, "fail"),
     (STATUS, Answer(exit_code=1), "fail"), (STATUS, Answer(stdout=b"garbage"), "fail"), (STATUS, {}, "fail"),
     (STATUS, whois_answer(), "fail"), (STATUS, whois_answer(Sharer=4), "fail")],
    ids=["logged out", "empty", "garbage", "refused", "no program", "no address", "nobody", "whois garbage",
         "whois empty", "another node", "another tailnet"],
)  # fmt: skip
async def test_a_tailscaled_that_does_not_vouch_for_this_node_never_passes(status, whois, verdict):
    found = await tailnet(status, whois)
    assert found.verdict == verdict, found


@pytest.fixture
def log(tmp_path):
    """A log of several segments, as the host's files."""
    path = tmp_path / "audit.jsonl"
    write_log(path, 30, max_bytes=3000)
    assert len(closed_segments(path)) > 2
    return {f"{STATE}/{each.name}": each.read_bytes() for each in tmp_path.iterdir()}


def closed(log):
    return sorted(path for path in log if not path.endswith(".jsonl"))


async def test_every_segment_of_the_chain_is_verified(log):
    found = await look("agent.audit", files=log)
    assert found.verdict == "pass"
    assert f"in {len(log)} files" in found.summary


async def test_a_changed_line_of_an_old_segment_is_found_with_its_place(log):
    oldest = closed(log)[0]
    log[oldest] = log[oldest].replace(b'"allow"', b'"deny"', 1)
    found = await look("agent.audit", files=log)
    assert found.verdict == "fail"
    assert found.evidence[0].path == oldest


async def test_a_segment_that_is_gone_is_found(log):
    del log[closed(log)[1]]
    assert (await look("agent.audit", files=log)).verdict == "fail"


async def test_of_a_chain_that_is_too_long_nothing_is_read(log, monkeypatch):
    monkeypatch.setattr(agent_self, "AUDIT_BYTES", sum(map(len, log.values())) - 1)
    read = []

    async def noted(probe, path, **limits):
        read.append(path)
        return await real(probe, path, **limits)

    real = Probe.read
    monkeypatch.setattr(Probe, "read", noted)
    found = await look("agent.audit", files=log)
    assert found.verdict == "unknown"
    assert "audit has 0 MiB, of which 0 are read" in found.summary
    assert not [path for path in read if path.startswith(STATE)]


async def test_a_line_that_is_being_written_is_no_break(log):
    log[f"{STATE}/audit.jsonl"] += b'{"seq": 9'
    assert (await look("agent.audit", files=log)).verdict == "pass"


async def test_a_directory_that_does_not_reach_the_disk_fails(log):
    found = await look("agent.audit", files=log, fsync=1)
    assert found.verdict == "fail"
    assert "can't be put on the disk" in found.summary
