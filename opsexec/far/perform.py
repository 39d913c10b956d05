"""Doing one operation and wording its answer or its failure for the way back."""

from __future__ import annotations

import os
import signal

from opsexec.far.message import FarError, as_bytes, as_text, pack_message
from opsexec.far.run import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def perform(items: list[bytes]) -> bytes:
    """Do `[operation, argument...]`; returns b"a" + its answer, or b"f" + [code, text, details...], as messages."""
    try:
        if not items:
            raise FarError("protocol", "a call names no operation")
        return b"a" + pack_message(operation(as_text(items[0]))(items[1:]))
    except FarError as error:
        return failure(error)
    except OSError as error:
        return failure(FarError("os", os.strerror(error.errno or 0), str(error.errno), str(error.filename or "")))
    except ValueError as error:
        return failure(FarError("protocol", str(error)))


def perform_in_child(items: list[bytes]) -> tuple[int, int]:
    """Fork a child that performs a call; returns (its pid, the pipe on which `perform`'s answer comes).

    What it performs is loaded before that, once: a child that had to would compile it anew at every call.
    """
    from opsexec.far.operations import load

    if items:
        load(items[0].decode("ascii", "replace"))
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            write_whole(into, perform(items))
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    os.set_blocking(out, False)
    return pid, out


def operation(name: str) -> Callable[[list[bytes]], list[bytes]]:
    """Return the operation of that name; raises FarError when there is none."""
    from opsexec.far.operations import OPERATIONS

    if name not in OPERATIONS:
        raise FarError("protocol", "no such operation: " + name)
    return OPERATIONS[name]


def failure(error: FarError) -> bytes:
    """Return a failure's wire form."""
    texts = (error.code, error.text, *error.details)
    return b"f" + pack_message([as_bytes(text) for text in texts])
