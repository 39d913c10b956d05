"""The caller's own end of a copy that rsync doesn't carry: a process of its own, so that it can be ended at any moment.

`tar_local FROM TO`: descriptors of the stream from and to the host's end. The request (whose path is the local one)
comes on stdin; what came of it goes to stdout, in the frames of `copy_pipe`.
"""

from __future__ import annotations

import os
import sys
from struct import error as struct_error

from opsexec.far import copy_pipe
from opsexec.far.copy_pipe import Pipe, Told, heed_signals, send_failure
from opsexec.far.copy_request import CopyRequest
from opsexec.far.exclude import Excludes
from opsexec.far.faults import fault
from opsexec.far.message import FarError, unpack_message
from opsexec.far.walk import SEARCH, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opsexec.far.tree_send import Sender


def main() -> None:
    """Copy, and exit with 0 when that was told, whatever came of it."""
    heed_signals()
    pipe, results = Pipe(int(sys.argv[1]), int(sys.argv[2])), Pipe(-1, 1)
    with open(0, "rb", closefd=False) as stdin:
        request = CopyRequest.parse(stdin.read())
    try:
        _copy(request, pipe, results)
    except Told as error:
        send_failure(results, error, "host")
    except FarError as error:
        send_failure(results, error, "here")
    except OSError as error:
        send_failure(results, fault(error, "copy " + os.fsdecode(error.filename or request.path)), "here")
    except (ValueError, struct_error) as error:  # what was asked for here is checked before: the host's words aren't
        send_failure(results, FarError("protocol", f"the host's end of the copy makes no sense: {error}"), "here")


def _copy(request: CopyRequest, pipe: Pipe, results: Pipe) -> None:
    path = encode(request.path)
    excludes = Excludes(request.words[1:])
    if request.pushing:
        pipe.rate = request.rate
        _send(path, pipe, results, excludes)
        return
    from opsexec.far.tree_receive import Receiver

    parent, name = _destination(path)
    Receiver(
        pipe,
        results,
        parent,
        name,
        excludes,
        inside=path.endswith(b"/"),
        only=request.words[0],
        check=request.check,
        delete=request.delete,
    ).receive()


def _send(path: bytes, pipe: Pipe, results: Pipe, excludes: Excludes) -> None:
    from opsexec.far.tree_send import Sender

    top, name = _source(path)
    _offer(Sender(pipe, top, name, excludes), results)
    while True:
        kind, payload = pipe.receive()
        _relay(results, kind, payload)
        if kind == copy_pipe.DONE:
            results.flush()
            return


def _relay(results: Pipe, kind: int, payload: bytes) -> None:
    """Hand on what the host's end tells. Raises ValueError, FarError for what it can't mean."""
    if kind in (copy_pipe.CHANGES, copy_pipe.SKIPPED, copy_pipe.PROBLEM):
        unpack_message(payload)
    elif len(payload) != {copy_pipe.TOTAL: 8, copy_pipe.DONE: 0}.get(kind, -1):
        raise FarError("protocol", "the host's end of the copy told something else than what it did")
    results.send(kind, payload)


def _offer(sender: Sender, results: Pipe) -> None:
    try:
        sender.send_list()
        sender.stream(sender.wanted(lambda kind, payload: _relay(results, kind, payload)))
    except BrokenPipeError:
        return  # the host's end gave up: what it said last says why, and is read next


def _source(path: bytes) -> tuple[int, bytes]:
    """Return an open directory and the name in it that is to be sent."""
    parent, _, name = path.rpartition(b"/")
    if name in (b"", b".", b".."):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), b"."
    return os.open(parent or (b"/" if path.startswith(b"/") else b"."), SEARCH & ~os.O_NOFOLLOW), name


def _destination(path: bytes) -> tuple[int, bytes]:
    """Return an open directory and the name in it that is the destination; the caller's own links are followed."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), b"."
    except (FileNotFoundError, NotADirectoryError):
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        above = parent or (b"/" if path.startswith(b"/") else b".")
        return os.open(above, SEARCH & ~os.O_NOFOLLOW), name


if __name__ == "__main__":
    main()
