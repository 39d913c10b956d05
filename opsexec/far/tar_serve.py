"""The host's end of a copy that rsync doesn't carry: the granted place, and a sender or receiver there."""

from __future__ import annotations

import os
import stat

from opsexec.far.copy_pipe import Pipe, heed_signals, send_failure
from opsexec.far.copy_request import CopyRequest, admits_below, answer_failed, answer_ok, serve
from opsexec.far.exclude import Excludes
from opsexec.far.faults import fault
from opsexec.far.match import admits_path
from opsexec.far.message import FarError
from opsexec.far.tree_dirs import LIST_FLAGS
from opsexec.far.walk import SEARCH, decode, denial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.far.walk import Place


def main(nonce: str) -> None:
    """Serve one copy on stdin and stdout."""
    serve(nonce, _copy)


def _copy(request: CopyRequest) -> None:
    heed_signals()
    pipe = Pipe(0, 1, request.rate)
    granted = False
    try:
        excludes = Excludes(request.words)
        with request.located() as place:
            end = _receiving if request.pushing else _sending
            act = end(request, place, pipe, excludes)
            answer_ok()
            granted = True
            act()
        return
    except ValueError as error:
        problem = FarError("bad_request", str(error))
    except BrokenPipeError:
        return  # the caller is gone
    except OSError as error:
        where = f"copy {os.fsdecode(error.filename or request.path)}" if granted else f"reach {request.path}"
        problem = fault(error, where)
    except FarError as error:
        problem = error
    if granted:
        send_failure(pipe, problem)
    else:
        answer_failed(problem, request.path)


def _sending(request: CopyRequest, place: Place, pipe: Pipe, excludes: Excludes) -> Callable[[], None]:
    from opsexec.far.tree_send import Sender

    found = place.stat()
    if found is None:
        raise FarError("not_found", "no such file or directory: " + request.path)
    if request.inside:
        if not stat.S_ISDIR(found.st_mode):
            raise FarError("not_directory", request.path + " is not a directory", request.path)
        top, name, root = os.open(place.name, LIST_FLAGS, dir_fd=place.fd), b".", place.path
    else:
        top, name, root = os.open(b".", SEARCH, dir_fd=place.fd), place.name, place.path.rpartition("/")[0]
    sender = Sender(pipe, top, name, excludes, _admission(request, place, root))

    def act() -> None:
        sender.send_list()
        sender.stream(sender.wanted(_unexpected))

    return act


def _receiving(request: CopyRequest, place: Place, pipe: Pipe, excludes: Excludes) -> Callable[[], None]:
    from opsexec.far.tree_receive import Receiver

    return Receiver(
        pipe,
        pipe,
        place.fd,
        place.name,
        excludes,
        inside=request.inside,
        check=request.check,
        delete=request.delete,
        pushing=True,
        admit=_admission(request, place, place.path),
    ).receive


def _admission(request: CopyRequest, place: Place, root: str) -> Callable[[bytes], None] | None:
    """Return what checks each entry's own path; None where the grants admit all that may be there."""
    if admits_below(request.layers, place.path):
        return None

    def admit(name: bytes) -> None:
        path = place.path if name in (b"", b".") else root.rstrip("/") + "/" + decode(name)
        if not admits_path(request.layers, path):
            raise denial(request.verb, path, request.layers, "the tree holds what is not granted")

    return admit


def _unexpected(kind: int, payload: bytes) -> None:
    raise FarError("protocol", "the other end of the copy sent something else than what it wants")
