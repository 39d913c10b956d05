"""`fake_agent`: answers every request at a unix socket with the same bytes, as no real agent would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from opsexec.wire import FRAMES_TYPE, RESULT, Result, encode_result, frame


class FakeAgent:
    """One socket. `says`: the whole answer, after which the connection is closed; `asked`: the requests that came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.says = b""
        self.asked: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return  # it was shut down
            with link:
                try:
                    link.settimeout(10)
                    asked = b""
                    while b"\r\n\r\n" not in asked and (block := link.recv(65536)):
                        asked += block
                    self.asked.append(asked)
                    link.sendall(self.says)
                    link.shutdown(socket.SHUT_WR)
                    while link.recv(65536):
                        pass
                except OSError:
                    continue  # who asked has had enough

    @contextmanager
    def serving(self) -> Iterator[FakeAgent]:
        """Answer while the block lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join(20)


def http(body: bytes, status: str = "200 OK", offset: str = "0") -> bytes:
    """An answer of frames."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {FRAMES_TYPE}\r\nOps-Protocol: 1.0\r\nOps-Offset: {offset}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def result(value: Any, **fields: Any) -> bytes:
    """A step's whole answer with this value, and no output."""
    good = {"run": "0123456789abcdef", "exit_code": 0, "digest": f"sha256:{sha256().hexdigest()}"}
    return http(encode_result(Result(**{**good, "value": value, **fields})))


def raw_result(fields: Any) -> bytes:
    """A RESULT frame that holds this, whatever it is."""
    return http(frame(RESULT, msgspec.msgpack.encode(fields)))
