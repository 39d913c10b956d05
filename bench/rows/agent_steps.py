"""Steps through ops-agent: one host, fifty hosts, far away, and through sshd."""

from __future__ import annotations

from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.round_trip import round_trip_ms
from bench.verdict import Claim, Row
from tests.parts.delay_proxy import DelayProxy
from tests.parts.ops_agent import OpsAgent
from tests.parts.sshd import Endpoint

NAME = "agent-steps"
TITLE = "through ops-agent, from process start: 100 steps / 50 hosts x 10; at 20 ms; through sshd"
RTT_MS = 20.0
THROUGH_SSH = "opsexec, SshExec"


def run(rig: Rig) -> Row:
    """Seconds of the whole process; round trips; milliseconds a step."""
    row = Row(NAME, TITLE)
    steps = {"work": "steps", "in_flight": 1, "argv": ["/bin/true"]}
    with rig.host() as server, rig.agents() as agents:
        count = rig.size(100, 20)
        near = _contest(rig, [{"url": agents[0].url}], [as_job(server.endpoint())], {**steps, "count": count})
        through = {**steps, "count": count, "warm": True}
        by_ssh = rig.race(
            [
                Entrant(OURS, "with_opsexec.py", {**through, "hosts": [_behind_sshd(server.endpoint(), agents[0])]},
                        python="ours"),
                Entrant(THROUGH_SSH, "with_opsexec.py", {**through, "hosts": [as_job(server.endpoint())]},
                        python="ours"),
            ],
            rounds=9,
        )  # fmt: skip
        before_ms = round_trip_ms(RTT_MS)
        with DelayProxy((server.listen[0], server.port), rtt_ms=RTT_MS) as proxy:
            behind = _behind_sshd(server.endpoint_behind(proxy.address, proxy.port), agents[0])
            distant = rig.race([Entrant(OURS, "with_opsexec.py", {**through, "hosts": [behind]}, python="ours")])
        trip_ms = (before_ms + round_trip_ms(RTT_MS)) / 2
    size = rig.size(50, 8)
    with rig.hosts(size) as hosts, rig.agents(size) as agents:
        many = _contest(rig, [{"url": agent.url} for agent in agents], hosts, {**steps, "count": 10})
    row.take(near, "wall_s", "100 steps s")
    row.take(many, "wall_s", "50x10 s")
    row.take(by_ssh, "steps_s", "ms a step through sshd", scale=1000 / count)
    row.take(distant, "steps_s", "RTT a step", scale=1000 / trip_ms / count)
    row.claims += [
        Claim("100 steps vs asyncssh", near.median(OURS, "wall_s"), near.median("asyncssh", "wall_s"), 0.45, "s"),
        Claim("50 hosts x 10 vs asyncssh", many.median(OURS, "wall_s"), many.median("asyncssh", "wall_s"), 0.35, "s"),
        Claim("round trips a step", row.numbers.get(OURS, {}).get("RTT a step"), None, 1.15, "RTT", absolute=True),
        Claim("agent+ssh vs SshExec", by_ssh.median(OURS, "steps_s"), by_ssh.median(THROUGH_SSH, "steps_s"), 1.1, "s"),
    ]
    return row


def _contest(rig: Rig, ours: list[dict[str, Any]], hosts: list[dict[str, Any]], job: dict[str, Any]) -> Any:
    return rig.race(
        [
            Entrant(OURS, "with_opsexec.py", {**job, "hosts": ours}, python="ours"),
            Entrant("asyncssh", "with_asyncssh.py", {**job, "hosts": hosts}),
        ]
    )


def _behind_sshd(endpoint: Endpoint, agent: OpsAgent) -> dict[str, Any]:
    host = as_job(endpoint)
    return {**host, "url": f"agent+ssh://{host['user']}@{host['address']}:{host['port']}{agent.socket}"}
