"""A process that even SIGKILL doesn't end while it is held: a debugger keeps it in its exit, as a dead disk would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HOLD = """
import ctypes, os, sys
SEIZE, TRACE_EXIT = 0x4206, 0x40  # ptrace(2)
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
if ptrace(SEIZE, int(sys.argv[1]), None, TRACE_EXIT) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Hold this process; it goes on, or ends, once this is left."""
    argv = [sys.executable, "-c", HOLD, str(pid)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as debugger:
        assert debugger.stdin is not None
        assert debugger.stdout is not None
        try:
            assert debugger.stdout.readline() == "held\n"
            yield
        finally:
            debugger.stdin.close()
            debugger.wait(10)
