"""A TCP relay whose two ends may be in two network namespaces: listens in one, dials from the other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Relay:
    """Listens on `address`, a free port, where `within` does its work; each connection goes on to `to`, dialed here."""

    def __init__(self, within: Callable[[Callable[[], Any]], Any], address: str, to: tuple[str, int]) -> None:
        self._to = to
        self._over = threading.Event()
        self._listener: socket.socket = within(lambda: socket.create_server((address, 0)))
        self._listener.settimeout(0.2)
        self._thread = threading.Thread(target=self._accept)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        near.settimeout(None)
        with near, socket.create_connection(self._to, 10) as far:
            far.settimeout(None)
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one end is gone, which ends the other
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
