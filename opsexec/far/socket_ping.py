"""One `GET /_ping` to a unix socket: does a container service answer there, and if not, how does it not."""

from __future__ import annotations

import os
import stat as st

from opsexec.far.files import packed
from opsexec.far.message import FarError, as_bytes, unpack_layers
from opsexec.far.walk import decode, located

TIMEOUT_S = 2.0
REQUEST = b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n"


def ping_socket(args: list[bytes]) -> list[bytes]:
    """[path, grants] -> [json {state, detail}]; state as in `opsexec.steps.doctor.PingSocket`."""
    path, grants = args
    try:
        with located(decode(path), unpack_layers(grants), "fs.read") as place:
            info = place.stat()
            if info is None:
                return [_answer("missing", "ENOENT")]
            if not st.S_ISSOCK(info.st_mode):
                return [_answer("odd", "not a socket")]
            # Through the directory that is held open: its own path may be longer than sun_path, or be swapped.
            held = b"/proc/self/fd/%d/" % place.fd + place.name
            return [_ping(held if os.path.exists(b"/proc/self/fd") else as_bytes(place.path))]
    except (FileNotFoundError, NotADirectoryError):
        return [_answer("missing", "ENOENT")]
    except PermissionError:
        return [_answer("denied", "EACCES")]
    except FarError as error:
        if error.code == "not_directory":
            return [_answer("missing", "ENOTDIR")]
        raise


def _ping(path: bytes) -> bytes:
    import errno
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(path)
            link.sendall(REQUEST)
            said = link.recv(4096)
        except socket.timeout:  # noqa: UP041 - it is TimeoutError only from Python 3.10 on
            return _answer("silent", "no answer within 2 s")
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "unknown error")
            states = {"ENOENT": "missing", "ECONNREFUSED": "refused", "EACCES": "denied", "EAGAIN": "silent"}
            return _answer(states.get(name, "odd"), name)
    first = said.split(b"\r\n", 1)[0].decode("ascii", "replace")[:120]
    if first.startswith("HTTP/1.") and first[8:].split()[:1] == ["200"]:
        return _answer("ok", first)
    return _answer("odd", first or "closed without a word")


def _answer(state: str, detail: str) -> bytes:
    return packed({"state": state, "detail": detail})
