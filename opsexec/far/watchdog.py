"""The process that outlives a killed caller: sees its open runs in shared memory, and ends them when it is gone.

The caller keeps a table in a memory file both have mapped: no system call and no wake-up a run. What wakes this process
is the end of its stdin, which the kernel brings about however the caller dies.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct

from opsexec.far.frames import GRACE_S
from opsexec.far.tree_end import end_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = struct.Struct(">I64s")
"""One open run: its leader's pid (0 while it is being started) and its id, padded with NUL. All NUL: a free slot."""
MARK_BYTES = 64
"""The longest id that a slot holds whole: of a shorter piece of it no process would be found."""
SLOTS = 8192


def open_runs(table: mmap.mmap) -> Iterator[tuple[str, int]]:
    """Yield (run, pid) of the runs that the table holds."""
    for at in range(0, SLOTS * SLOT.size, SLOT.size):
        pid, run = SLOT.unpack_from(table, at)
        if run[0]:
            yield run.rstrip(b"\0").decode("ascii"), pid


def main(table_fd: int) -> None:
    """Wait until the caller is gone, then end the runs that are still open."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    table = mmap.mmap(table_fd, SLOTS * SLOT.size, access=mmap.ACCESS_READ)
    while os.read(0, 4096):
        continue
    end_now(list(open_runs(table)), GRACE_S)
    os._exit(0)
