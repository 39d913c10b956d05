"""`rsync -a -e ssh`, as everybody types it."""

from __future__ import annotations

import shlex
import subprocess
import time
from typing import Any

from bench.contestants.protocol import job, report


def main(work: dict[str, Any]) -> None:
    host = work["hosts"][0]
    shell = shlex.join(
        [
            "ssh", "-F", "none", "-p", str(host["port"]), "-l", host["user"], "-i", host["identity"],
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "IdentityAgent=none",
            "-o", f"UserKnownHostsFile={host['known_hosts']}", "-o", "GlobalKnownHostsFile=/dev/null",
        ]
    )  # fmt: skip
    far = f"{host['address']}:"
    pair = [work["src"], far + work["dst"]] if work["direction"] == "push" else [far + work["src"], work["dst"]]
    start = time.perf_counter()
    subprocess.run(["rsync", "-a", "-e", shell, *pair], check=True, stdin=subprocess.DEVNULL)
    report(seconds=time.perf_counter() - start)


main(job())
