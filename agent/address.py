"""Addresses to listen on: what they say, what kind of principal they prove, and which are refused."""

from __future__ import annotations

import os.path
from typing import Literal, NamedTuple

from agent.errors import BadConfig

UNIX_PATH_BYTES = 107
"""The longest path a unix socket address holds (unix(7): sun_path has 108 bytes, the last of them NUL)."""


class Address(NamedTuple):
    """One address. `proves`: the kind of principal that a listener there can tell."""

    text: str
    path: str
    proves: Literal["unix"] = "unix"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `unix:/path`; raises BadConfig for everything else, wildcard and public addresses first of all."""
        kind, colon, rest = text.partition(":")
        if kind == "unix" and colon:
            require_plain_path(rest)
            if len(os.fsencode(rest)) > UNIX_PATH_BYTES:
                raise BadConfig(f"the path of {text!r} is over {UNIX_PATH_BYTES} bytes", hint="use a shorter one")
            return cls(text, rest)
        if kind == "tailnet":
            hint = "use unix:/run/ops-agent/agent.sock; from other hosts reach it with agent+ssh://"
            raise BadConfig(f"{text!r}: this version listens on unix sockets alone", hint=hint)
        hint = "an agent listens on unix:/path alone: no other address says who connects"
        raise BadConfig(f"{text!r} is an address that proves nobody's identity", hint=hint)


def require_plain_path(path: str) -> None:
    """Raise BadConfig unless a path is absolute and normalised."""
    if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path or path.startswith("//"):
        raise BadConfig(f"{path!r} is not an absolute, normalised path", hint="like /run/ops-agent/agent.sock")
