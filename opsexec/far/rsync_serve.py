"""The host's end of a copy by rsync: walks to the granted place and becomes `rsync --server` there.

rsync is given `.` or a bare name in a directory that is already open. Unless the grants admit the whole host, the
kernel then holds it to that place, because rsync itself follows links that appear on its way. What can't be held that
way is answered with `take_tar`: the tar stream does each step by descriptors of its own.
"""

from __future__ import annotations

import os

from opsexec.far.copy_request import CopyRequest, admits_below, answer_failed, answer_ok, serve
from opsexec.far.launch import MARKER, SEARCH_PATH, kept_environment
from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from opsexec.far.walk import Place
else:
    import _signal as signal  # the module behind `signal`, which costs 5 ms to load

FLAGS = frozenset(b"lnogtpri")
"""Letters of rsync's packed options that keep to what was asked: none follows links, none names another path."""
WORDS = (b"--delete", b"--delete-during", b"--delete-before", b"--safe-links")
VALUES = (b"--bwlimit=", b"--timeout=", b"--info=", b"--log-format=", b"--out-format=")
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def main(nonce: str) -> None:
    """Serve one copy on stdin and stdout."""
    serve(nonce, _become_rsync)


def _become_rsync(request: CopyRequest) -> None:
    try:
        program = rsync_program()
        require_plain(request.words, sending=not request.pushing)
        name, made = enter(request)
    except (FarError, OSError) as error:
        answer_failed(error, request.path)
        return
    environment = kept_environment()
    environment["PATH"] = SEARCH_PATH
    outer = environment.get(MARKER)
    environment[MARKER] = outer + "/" + request.run if outer else request.run
    answer_ok(*([b"made"] if made else []))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(program, [b"rsync", b"--server", *request.words, b".", name], environment)


def rsync_program() -> str:
    """Return the host's rsync; raises FarError `take_tar` when there is none."""
    for directory in SEARCH_PATH.split(":"):
        if os.access(directory + "/rsync", os.X_OK) and os.path.isfile(directory + "/rsync"):
            return directory + "/rsync"
    raise FarError("take_tar", "the host has no rsync")


def require_plain(options: Sequence[bytes], sending: bool) -> None:
    """Raise FarError `take_tar` unless each server option is one that can't widen what the copy touches.

    From rsync 3.0 to 3.5's options.c, server_options(): after an `e` the letters are what the client is able to do.
    """
    if (b"--sender" in options) != sending:
        raise FarError("protocol", "the local rsync wants to copy in the other direction")
    for option in options:
        if option == b"--sender" or option in WORDS or option.startswith(VALUES):
            continue
        flags, _, able = option[1:].partition(b"e")
        plain = option[:1] == b"-" and FLAGS.issuperset(flags) and able.replace(b".", b"").isalnum()
        if not plain:
            raise FarError("take_tar", f"the local rsync asks for {option!r}")


def enter(request: CopyRequest) -> tuple[bytes, bool]:
    """Enter the directory to work in, held to it where the grants end there, and return the name to give to rsync.

    Also tells whether the directory was made for that. Raises FarError, OSError.
    """
    free = admits_below(request.layers, "/")
    with request.located() as place:
        if not free and not admits_below(request.layers, place.path):
            raise FarError("take_tar", "the grants admit parts of " + place.path)
        if request.pushing:
            return _enter_to_receive(request, place, free)
        return _enter_to_send(request, place, free), False


def _enter_to_receive(request: CopyRequest, place: Place, free: bool) -> tuple[bytes, bool]:
    here = _directory(place)
    made = False
    if here is None and request.inside and place.stat() is not None:
        raise FarError("not_directory", request.path + " is not a directory", request.path)
    if here is None and not free:
        if place.stat() is not None or not (request.tree or request.inside):
            raise FarError("take_tar", "a single file is put in its place")
        if not request.check:
            os.mkdir(place.name, 0o777, dir_fd=place.fd)
            here, made = _directory(place), True
    os.fchdir(place.fd if here is None else here)
    if not free:
        _confine(here, writes=not request.check)
    if here is None:
        return b"./" + place.name + (b"/" if request.inside else b""), False
    os.close(here)
    return b"./", made


def _enter_to_send(request: CopyRequest, place: Place, free: bool) -> bytes:
    found = place.stat()
    if found is None:
        raise FarError("not_found", "no such file or directory: " + request.path)
    here = _directory(place) if request.inside else None
    if request.inside and here is None:
        raise FarError("not_directory", request.path + " is not a directory", request.path)
    os.fchdir(place.fd if here is None else here)
    if not free:
        held = here
        if held is None:
            # A link is sent as a link: nothing has to be opened for it.
            held = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
        _confine(held, writes=False)
    return b"./" if here is not None else b"./" + place.name


def _confine(fd: int | None, writes: bool) -> None:
    from opsexec.far.confine import confine

    try:
        confine(fd, writes=writes, mounts=writes and os.geteuid() == 0)
    except FarError as error:
        raise FarError("take_tar", error.text) from error


def _directory(place: Place) -> int | None:
    """Open the directory that stands at a place; None when something else does, or nothing."""
    try:
        # O_NOFOLLOW: the walk said that this is no link; if it is one by now, refuse.
        return os.open(place.name, OPEN_FLAGS | os.O_DIRECTORY, dir_fd=place.fd)
    except (NotADirectoryError, FileNotFoundError):
        return None
