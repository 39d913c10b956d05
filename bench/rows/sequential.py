"""One hundred steps, one after the other, on one SSH host whose connection is warm."""

from __future__ import annotations

from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "ssh-100"
TITLE = "100 sequential steps on one SSH host"
LIMITS = {"asyncssh": 0.75, "pyinfra": 1 / 8, "ansible+mitogen": 1 / 14, "ansible": 1 / 50}


def everyone(job: dict[str, Any], *, memory: bool = False) -> list[Entrant]:
    """opsexec and all peers with the same steps."""
    return [
        Entrant(OURS, "with_opsexec.py", job, python="ours", memory=memory),
        Entrant("asyncssh", "with_asyncssh.py", job, memory=memory),
        Entrant("ControlMaster", "with_openssh.py", job, memory=memory),
        Entrant("fabric", "with_fabric.py", job, memory=memory),
        Entrant("pyinfra", "with_pyinfra.py", job, memory=memory),
        Entrant("ansible+mitogen", "with_ansible.py", {**job, "mitogen": True}, slow=True, memory=memory),
        Entrant("ansible", "with_ansible.py", job, slow=True, memory=memory),
    ]


def run(rig: Rig) -> Row:
    """Seconds for all steps, connection and interpreter start not counted (for no contestant)."""
    row = Row(NAME, TITLE)
    with rig.host() as server:
        job = {
            "work": "steps",
            "hosts": [as_job(server.endpoint())],
            "count": rig.size(100, 20),
            "in_flight": 1,
            "argv": ["/bin/true"],
            "warm": True,
        }
        field = rig.race(everyone(job))
    row.take(field, "steps_s", "s")
    row.take(field, "cpu_s", "CPU s")
    mine = field.median(OURS, "steps_s")
    row.claims += [
        Claim(f"vs {peer}", mine, field.median(peer, "steps_s"), limit, "s") for peer, limit in LIMITS.items()
    ]
    return row
