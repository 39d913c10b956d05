"""A mount that answers nobody: a FUSE file system whose daemon never says a word. Needs root.

The daemon is a process of its own, for a minute at most: then everyone who still waits gets ENOTCONN, also a test that
froze altogether.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FUSE = Path("/dev/fuse")
_DAEMON = """
import ctypes, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"stuck", os.fsencode(sys.argv[1]), b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, b"up")
os.close(1)
select.select([0], [], [], 60)
libc.umount2(os.fsencode(sys.argv[1]), 2)  # MNT_DETACH
"""


@contextlib.contextmanager
def stuck_mount(place: Path) -> Iterator[Path]:
    """Whoever looks below `place` waits until the block ends or it is killed. Raises OSError where that can't be."""
    place.mkdir(exist_ok=True)
    argv = [sys.executable, "-I", "-S", "-c", _DAEMON, str(place)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        if daemon.stdout.read() != b"up":
            raise OSError("the file system could not be mounted")
        try:
            yield place
        finally:
            daemon.stdin.close()
            daemon.wait(timeout=10)
