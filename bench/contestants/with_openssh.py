"""The OpenSSH client, one process a command, through a ControlMaster when the job says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.contestants.protocol import job, report


def client(host: dict[str, Any], *options: str) -> list[str]:
    return [
        "ssh", "-F", "none", "-p", str(host["port"]), "-l", host["user"], "-i", host["identity"],
        "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={host['known_hosts']}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "IdentityAgent=none", *options, host["address"],
    ]  # fmt: skip


def master(host: dict[str, Any]) -> list[str]:
    """Start a ControlMaster; returns the options that use it."""
    path = f"{os.environ['HOME']}/cm-{host['address']}-{host['port']}"
    subprocess.run(client(host, "-M", "-N", "-f", "-o", f"ControlPath={path}"), check=True, stdin=subprocess.DEVNULL)
    return ["-o", f"ControlPath={path}"]


def steps(work: dict[str, Any]) -> None:
    command = " ".join(work["argv"])
    begin = time.perf_counter()
    options = {host["address"]: master(host) for host in work["hosts"]}
    outcome = {"ok": 0, "errors": 0}

    def one(host: dict[str, Any]) -> None:
        argv = [*client(host, *options[host["address"]]), command]
        status = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode
        outcome["ok" if status == 0 else "errors"] += 1

    def on_host(host: dict[str, Any]) -> None:
        with ThreadPoolExecutor(work["in_flight"]) as pool:
            list(pool.map(one, [host] * work["count"]))

    start = time.perf_counter()
    with ThreadPoolExecutor(len(work["hosts"])) as pool:
        list(pool.map(on_host, work["hosts"]))
    end = time.perf_counter()
    report(steps_s=end - start, total_s=end - begin, **outcome)


def stream(work: dict[str, Any]) -> None:
    """`ssh -c aes128-gcm host cat`, its output thrown away by the kernel."""
    argv = client(work["hosts"][0], "-c", "aes128-gcm@openssh.com")
    start = time.perf_counter()
    subprocess.run([*argv, work["command"]], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    report(seconds=seconds, mb_s=work["bytes"] / 1e6 / seconds)


def hold(work: dict[str, Any]) -> None:
    """Become the client, so that the caller is ssh itself; its deadline is timeout(1)."""
    host = work["hosts"][0]
    argv = [*client(host, *(master(host) if work.get("control_master") else [])), work["script"]]
    if work["event"] in ("deadline", "cancel"):
        argv = ["timeout", str(work["deadline_s"]), *argv]
    os.execvp(argv[0], argv)


the_job = job()
WORKS = {f.__name__: f for f in (steps, stream, hold)}
WORKS[the_job["work"]](the_job)
sys.exit(0)
