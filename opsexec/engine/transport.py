"""Connections of the `docker` package that its caller holds too, so that they can be counted and cut."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class _Connection(UnixHTTPConnection):
    def __init__(self, path: str, timeout: float, make: Callable[[], socket.socket]) -> None:
        super().__init__("http+docker://localhost", path, timeout)
        self._make = make

    def connect(self) -> None:
        sock = self._make()
        sock.settimeout(self.timeout)
        sock.connect(self.unix_socket)
        self.sock = sock


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, path: str, timeout: float, make: Callable[[], socket.socket]) -> None:
        super().__init__("http+docker://localhost", path, timeout)
        self._make = make

    def _new_conn(self) -> _Connection:
        return _Connection(self.socket_path, self.timeout, self._make)


class Adapter(UnixHTTPAdapter):
    """Carries requests over sockets that `make` made."""

    def __init__(self, path: str, timeout: float, make: Callable[[], socket.socket]) -> None:
        super().__init__(path, timeout)
        self._pool = _Pool(path, timeout, make)

    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        """Return the one pool there is."""
        return self._pool

    def close(self) -> None:
        """Let the connections go."""
        self._pool.close()
        super().close()
