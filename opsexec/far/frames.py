"""The frames between a caller and the session on the host: kind, reference, length, payload.

Header: 1 byte kind, 4 bytes reference (which run or call it belongs to), 4 bytes payload length, big-endian.
"""

from __future__ import annotations

from struct import Struct

HEADER = Struct(">BII")
NUMBER = Struct(">I")
SIZE = Struct(">HH")
STATUS = Struct(">i")
MAX_FRAME = 1 << 30
PROTOCOL = b"1"

# caller -> host
SPAWN = 1  # message: see launch.Launch.parse
INPUT = 2  # bytes for the program's stdin; empty = end of input
CREDIT = 3  # NUMBER: the caller may take this many more bytes of output
END = 4  # NUMBER: end the run's process tree; milliseconds between SIGTERM and SIGKILL
RESIZE = 5  # SIZE: columns, rows
CALL = 6  # message: operation, arguments
SOURCES = 7  # compressed message: name, source, ...: modules for the operations to come
BEAT = 8  # nothing: the caller is still there; the host answers with the same

# host -> caller
HELLO = 64  # message: protocol, python version, pid, user
OUTPUT = 65  # bytes of stdout
ERRORS = 66  # bytes of stderr
EXIT = 67  # STATUS: exit code, or minus the signal's number
ANSWER = 68  # message
FAILED = 69  # message: code, text, details
TAKEN = 70  # NUMBER: this many bytes of INPUT went into the program
ENDED = 71  # NUMBER: processes of the tree that could not be ended

OUTPUT_WINDOW = 4 << 20
"""Bytes of output the host may send before the caller grants more: what bounds memory on both sides."""
INPUT_WINDOW = 256 << 10
"""Bytes of INPUT a caller may have under way."""
LEASE_S = 20.0
"""Seconds without any frame after which the host ends its runs, and the caller gives the host up."""
BEAT_S = 5.0
"""Seconds between BEAT frames while something runs."""
GRACE_S = 0.25
"""Seconds a process tree gets between SIGTERM and SIGKILL."""
