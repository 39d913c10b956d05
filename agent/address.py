"""Addresses to listen on: what they say, what kind of principal they prove, and which are refused."""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection
from typing import Literal, NamedTuple

from agent.errors import BadConfig
from opsexec.far.message import as_bytes

UNIX_PATH_BYTES = 107
"""The longest path a unix socket address holds (unix(7): sun_path has 108 bytes, the last of them NUL)."""


class Address(NamedTuple):
    """One address. `proves`: the kind of principal that a listener there can tell."""

    text: str
    path: str
    proves: Literal["unix", "tailnet", "bottle"] = "unix"
    port: int = 0
    identity: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `unix:/path`, `tailnet:port` or `bottle:name:/path`; raises BadConfig for all else, wildcards first."""
        kind, colon, rest = text.partition(":")
        if kind == "unix" and colon:
            return cls(text, _socket_path(text, rest))
        if kind == "bottle" and colon:
            name, _, path = rest.partition(":")
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
                hint = 'like "bottle:web:/run/ops-agent/bottles/web/agent.sock"'
                raise BadConfig(f"{text!r} names no bottle", hint=hint)
            return cls(text, _socket_path(text, path), "bottle", identity=name)
        if kind == "tailnet":
            if not re.fullmatch(r"[1-9][0-9]{0,4}", rest) or int(rest) > 65535:
                raise BadConfig(f"{text!r} names no port of this node", hint='like "tailnet:7227"')
            return cls(text, "", "tailnet", int(rest))
        hint = 'use "unix:/path" or "tailnet:7227": at no other address it is known who connects'
        raise BadConfig(f"{text!r} is an address that proves nobody's identity", hint=hint)


def _socket_path(text: str, path: str) -> str:
    require_plain_path(path)
    if len(as_bytes(path)) > UNIX_PATH_BYTES:
        raise BadConfig(f"the path of {text!r} is over {UNIX_PATH_BYTES} bytes", hint="use a shorter one")
    return path


def require_bottles_apart(addresses: Collection[Address]) -> None:
    """Raise BadConfig where a bottle that is given its socket's directory would be given another socket too."""
    for each in addresses:
        directory = os.path.dirname(each.path) + "/"
        for other in addresses:
            if each.proves == "bottle" and other is not each and other.path.startswith(directory):
                hint = "a directory for each bottle's socket alone"
                raise BadConfig(f"{other.text!r} lies in the directory of {each.text!r}", hint=hint)


def require_plain_path(path: str) -> None:
    """Raise BadConfig unless a path is absolute and normalised."""
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path or path.startswith("//"):
        raise BadConfig(f"{path!r} is not an absolute, normalised path", hint="like /run/ops-agent/agent.sock")
