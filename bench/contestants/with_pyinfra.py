"""pyinfra through its Python interface: one `server.shell` operation a step."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# gevent patches before anything else is loaded.
import time
from typing import Any

from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.operations import server

from bench.contestants.protocol import job, report


def inventory(work: dict[str, Any]) -> State:
    hosts = [
        (
            host["address"],
            {
                "ssh_user": host["user"], "ssh_port": host["port"], "ssh_key": host["identity"],
                "ssh_known_hosts_file": host["known_hosts"], "ssh_strict_host_key_checking": "yes",
            },
        )
        for host in work["hosts"]
    ]  # fmt: skip
    return State(Inventory((hosts, {})), Config(PARALLEL=len(hosts)))


def steps(work: dict[str, Any]) -> None:
    command = " ".join(work["argv"])
    begin = time.perf_counter()
    state = inventory(work)
    connect_all(state)
    start = time.perf_counter()
    for _ in range(work["count"]):
        add_op(state, server.shell, commands=[command])
    run_ops(state)
    end = time.perf_counter()
    good = sum(state.results[host].success_ops for host in state.inventory)
    report(steps_s=end - start, total_s=end - begin, ok=good, errors=work["count"] * len(work["hosts"]) - good)


def hold(work: dict[str, Any]) -> None:
    state = inventory(work)
    connect_all(state)
    options = {"_timeout": work["deadline_s"]} if work["event"] == "deadline" else {}
    add_op(state, server.shell, commands=[work["script"]], **options)
    run_ops(state)


the_job = job()
WORKS = {f.__name__: f for f in (steps, hold)}
WORKS[the_job["work"]](the_job)
