"""What two processes and a pipe can pass on: `cat FILE | cat`."""

from __future__ import annotations

import shlex
import subprocess
import time

from bench.contestants.protocol import job, report

work = job()
start = time.perf_counter()
subprocess.run(["/bin/sh", "-c", f"cat {shlex.quote(work['argv'][-1])} | cat > /dev/null"], check=True)
seconds = time.perf_counter() - start
report(seconds=seconds, mb_s=work["bytes"] / 1e6 / seconds)
