"""Addresses to listen on: what they say, what kind of principal they prove, and which are refused."""

from __future__ import annotations

import os.path
import re
from typing import Literal, NamedTuple

from agent.errors import BadConfig

UNIX_PATH_BYTES = 107
"""The longest path a unix socket address holds (unix(7): sun_path has 108 bytes, the last of them NUL)."""


class Address(NamedTuple):
    """One address. `proves`: the kind of principal that a listener there can tell."""

    text: str
    path: str
    proves: Literal["unix", "tailnet"] = "unix"
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `unix:/path` or `tailnet:port`; raises BadConfig for all else, wildcard and public addresses first."""
        kind, colon, rest = text.partition(":")
        if kind == "unix" and colon:
            require_plain_path(rest)
            if len(os.fsencode(rest)) > UNIX_PATH_BYTES:
                raise BadConfig(f"the path of {text!r} is over {UNIX_PATH_BYTES} bytes", hint="use a shorter one")
            return cls(text, rest)
        if kind == "tailnet":
            if not re.fullmatch(r"[1-9][0-9]{0,4}", rest) or int(rest) > 65535:
                raise BadConfig(f"{text!r} names no port of this node", hint='like "tailnet:7227"')
            return cls(text, "", "tailnet", int(rest))
        hint = 'use "unix:/path" or "tailnet:7227": at no other address it is known who connects'
        raise BadConfig(f"{text!r} is an address that proves nobody's identity", hint=hint)


def require_plain_path(path: str) -> None:
    """Raise BadConfig unless a path is absolute and normalised."""
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path or path.startswith("//"):
        raise BadConfig(f"{path!r} is not an absolute, normalised path", hint="like /run/ops-agent/agent.sock")
