"""Fabric: one `Connection` a host, `run` for each step; hosts in threads, as its ThreadingGroup has them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paramiko
from fabric import Connection

from bench.contestants.protocol import job, report


def connect(host: dict[str, Any]) -> Connection:
    conn = Connection(
        host["address"], user=host["user"], port=host["port"],
        connect_kwargs={"key_filename": host["identity"], "look_for_keys": False, "allow_agent": False},
    )  # fmt: skip
    conn.client.load_host_keys(host["known_hosts"])
    conn.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    conn.open()
    return conn


def steps(work: dict[str, Any]) -> None:
    command = " ".join(work["argv"])
    begin = time.perf_counter()
    with ThreadPoolExecutor(len(work["hosts"])) as pool:
        conns = list(pool.map(connect, work["hosts"]))

        def on_host(conn: Connection) -> int:
            return sum(conn.run(command, hide=True, in_stream=False).ok for _ in range(work["count"]))

        start = time.perf_counter()
        good = sum(pool.map(on_host, conns))
        end = time.perf_counter()
    report(steps_s=end - start, total_s=end - begin, ok=good, errors=work["count"] * len(conns) - good)


def hold(work: dict[str, Any]) -> None:
    conn = connect(work["hosts"][0])
    if work["event"] == "deadline":
        conn.run(work["script"], hide=True, in_stream=False, timeout=work["deadline_s"])
    elif work["event"] == "cancel":
        promise = conn.run(work["script"], hide=True, in_stream=False, asynchronous=True)
        time.sleep(work["deadline_s"])
        promise.runner.kill()
        time.sleep(60)
    else:
        conn.run(work["script"], hide=True, in_stream=False)


the_job = job()
WORKS = {f.__name__: f for f in (steps, hold)}
WORKS[the_job["work"]](the_job)
