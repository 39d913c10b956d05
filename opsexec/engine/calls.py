"""`Calls`: what an engine is asked in one small question and one answer, by hand; a stream is the `docker` package's.

To load that package takes as long as an engine takes to make a network, and nothing of it is needed for these. Paths
and bodies are the Docker Engine API's, of v1.41 and on.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any
from urllib.parse import quote, urlencode

_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\Z")
_BLOCK = 256 << 10
ODD = (ValueError, KeyError, TypeError, AttributeError, RecursionError, http.client.HTTPException)
"""What becomes of an answer that isn't an engine's, on its way to a value."""


class Refusal(Exception):
    """The engine said no. `status`: its HTTP status; `text`: its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Calls:
    """The calls, each over a connection of its own, which `lend` lends.

    They raise Refusal, what a socket raises, and one of ODD for an answer that isn't an engine's. They block: they are
    for a thread beside the loop.
    """

    def __init__(self, lend: Callable[[], AbstractContextManager[socket.socket]], version: str = "") -> None:
        self._lend = lend
        self.version = version or self._latest()

    def _latest(self) -> str:
        """Return the latest version of the API that the engine speaks."""
        said = self._exchange("GET", "/_ping")[0].get("Api-Version") or ""
        if not _VERSION.match(said):
            raise ValueError("Api-Version")
        return said

    def info(self) -> Any:
        """The engine itself."""
        return self._answer("GET", "/info")

    def inspect_container(self, name: str) -> Any:
        """One container."""
        return self._answer("GET", f"/containers/{_part(name)}/json")

    def inspect_image(self, name: str) -> Any:
        """One image."""
        return self._answer("GET", f"/images/{_part(name)}/json")

    def inspect_network(self, name: str) -> Any:
        """One network."""
        return self._answer("GET", f"/networks/{_part(name)}")

    def create_network(self, body: Mapping[str, Any]) -> Any:
        """Make a network."""
        return self._answer("POST", "/networks/create", body)

    def connect_to_network(self, container: str, network: str, endpoint: Mapping[str, Any]) -> None:
        """Put a container on a further network."""
        body = {"Container": container, "EndpointConfig": endpoint}
        self._do("POST", f"/networks/{_part(network)}/connect", body)

    def remove_network(self, network: str) -> None:
        """Remove a network."""
        self._do("DELETE", f"/networks/{_part(network)}")

    def create_container(self, config: Mapping[str, Any], name: str) -> Any:
        """Make a container of its whole configuration."""
        return self._answer("POST", f"/containers/create?{urlencode({'name': name})}", config)

    def start(self, container: str) -> None:
        """Start a container; one that runs is left as it is."""
        self._do("POST", f"/containers/{_part(container)}/start")

    def remove_container(self, container: str) -> None:
        """End a container and remove it with its volumes."""
        self._do("DELETE", f"/containers/{_part(container)}?v=1&force=1")

    def exec_create(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        stdin: bool = False,
    ) -> Any:
        """Make ready to run a program in a container."""
        body = {
            "Cmd": list(argv),
            "User": user,
            "Env": [f"{name}={value}" for name, value in (env or {}).items()],
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
        }
        if workdir is not None:
            body["WorkingDir"] = workdir
        return self._answer("POST", f"/containers/{_part(container)}/exec", body)

    def exec_finish(self, made: str) -> None:
        """Run what was made ready, to the end of its output, which nobody takes."""
        self._do("POST", f"/exec/{_part(made)}/start", {"Detach": False, "Tty": False})

    def exec_inspect(self, made: str) -> Any:
        """A program in a container."""
        return self._answer("GET", f"/exec/{_part(made)}/json")

    def _answer(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
        return json.loads(self._exchange(method, f"/v{self.version}{target}", body)[1])

    def _do(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        self._exchange(method, f"/v{self.version}{target}", body)

    def _exchange(
        self, method: str, target: str, body: Mapping[str, Any] | None = None
    ) -> tuple[http.client.HTTPMessage, bytes]:
        with self._lend() as made, closing(http.client.HTTPConnection("docker")) as connection:
            connection.sock = made
            data = None if body is None else json.dumps(body).encode()
            headers = {"Connection": "close"} | ({} if data is None else {"Content-Type": "application/json"})
            connection.request(method, target, data, headers)
            with closing(connection.getresponse()) as answer:
                said = _whole(answer)
        if answer.status >= 400:
            raise Refusal(answer.status, _reason(said, answer.status))
        if not 200 <= answer.status < 300 and answer.status != http.client.NOT_MODIFIED:
            raise ValueError(f"HTTP {answer.status}")  # an engine sends nobody elsewhere, but for a path that isn't one
        return answer.headers, said


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Return a body, taken as it comes: who says that it is long has no memory set aside for it."""
    blocks = []
    while block := answer.read(_BLOCK):
        blocks.append(block)
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(blocks)


def _reason(said: bytes, status: int) -> str:
    try:
        message = json.loads(said)["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = said.decode("utf-8", "replace")
    return message if isinstance(message, str) else f"HTTP {status}"


def _part(name: str) -> str:
    """Return a name as a part of a path. An image's may hold `/`, and no name here holds `..` as one of its parts."""
    return quote(name, safe="/:")
