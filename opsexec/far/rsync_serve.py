"""The host's end of a copy: goes to the granted place by a walk that no link can move, then becomes `rsync --server`.

rsync is given `.` or a bare name in a directory that is already open, so what it touches is where the walk ended.
"""

from __future__ import annotations

import os
import signal
from struct import unpack

from opsexec.far.launch import KEPT, MARKER, SEARCH_PATH
from opsexec.far.message import FarError, pack_message, unpack_layers, unpack_message
from opsexec.far.session import write_whole
from opsexec.far.walk import decode, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(nonce: str) -> None:
    """Read one request, answer it with a length-prefixed message, and become rsync when it was granted."""
    write_whole(1, nonce.encode())
    (size,) = unpack(">I", _read(4))
    run, verb, path, grants, *options = unpack_message(_read(size))
    try:
        program = rsync_program()
        name = _go(verb.decode(), decode(path), unpack_layers(grants))
        answer = [b"ok"]
    except FarError as error:
        answer = [b"failed"] + [os.fsencode(text) for text in (error.code, error.text) + tuple(error.details)]
    except OSError as error:
        answer = [b"failed", b"os", os.fsencode(os.strerror(error.errno or 0)), b"%d" % (error.errno or 0)]
    data = pack_message(answer)
    write_whole(1, len(data).to_bytes(4, "big") + data)
    if answer[0] != b"ok":
        os._exit(0)
    environment = {key: os.environ[key] for key in KEPT if key in os.environ}
    environment["PATH"] = SEARCH_PATH
    environment[MARKER] = run.decode()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(program, [b"rsync", b"--server", *options, b".", name], environment)


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = os.read(0, size - len(data))
        if not block:
            os._exit(0)
        data += block
    return data


def rsync_program() -> str:
    """Return the host's rsync; raises FarError `no_rsync`."""
    for directory in SEARCH_PATH.split(":"):
        if os.access(directory + "/rsync", os.X_OK):
            return directory + "/rsync"
    raise FarError("no_rsync", "the host has no rsync")


def _go(verb: str, path: str, layers: Sequence[Sequence[str]]) -> bytes:
    """Enter the directory to work in and return the name to give to rsync.

    A trailing slash in `path` means what is in the directory; otherwise it is copied, or written to, by its name.
    """
    pushing = verb == "sync.push"
    inside = path.endswith("/") and path != "/"
    with located(path.rstrip("/") or "/", layers, verb, follow=pushing or inside) as place:
        os.fchdir(place.fd)
        if path == "/":
            return b"./"
        found = place.stat()
        if found is None and not pushing:
            raise FarError("not_found", "no such file or directory: " + path)
        if found is not None and (pushing or inside):
            try:
                # O_NOFOLLOW: the walk said that this is no link; if it is one by now, refuse.
                here = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
            except NotADirectoryError:
                if inside:
                    raise FarError("not_directory", path + " is not a directory", path)
            else:
                os.fchdir(here)
                os.close(here)
                return b"./"
        return b"./" + place.name + (b"/" if inside else b"")
