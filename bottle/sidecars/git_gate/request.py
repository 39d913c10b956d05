"""The request at the head of a git:// connection: a service, a repository and a version, and nothing else.

The format is that of gitprotocol-pack(5), one packet line: `SERVICE SP PATH NUL [host=HOST NUL] [NUL (PARAMETER NUL)]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bottle.sidecars.git_gate.packets import Body
from bottle.sidecars.git_gate.repository import Refusal
from bottle.sidecars.git_gate.service import SERVICES, Name

MAX_REQUEST = 1024
"""Bytes of the packet line: a service, a name and a host are less."""

_SIZE = re.compile(rb"[0-9a-fA-F]{4}\Z")
_COMMAND = re.compile(rb"(git-[a-z-]{1,40}) /([A-Za-z0-9._-]{1,132})/?\Z")
_HOST = re.compile(rb"host=[A-Za-z0-9._:\[\]-]{1,255}\Z")
_VERSION = re.compile(rb"version=[012]\Z")


@dataclass(frozen=True)
class Request:
    """What a client asks for: `name` as it was spelled, perhaps with `.git`."""

    service: Name
    name: str


async def read_request(body: Body) -> Request:
    """Read it; raises Refusal for what isn't one, and for services and parameters that the gate doesn't have."""
    size = await body.exactly(4)
    if not _SIZE.match(size) or not 4 < int(size, 16) <= MAX_REQUEST:
        raise Refusal("that is no request of git's own protocol")
    return parsed(await body.exactly(int(size, 16) - 4))


def parsed(line: bytes) -> Request:
    """Return what the packet line asks for; raises Refusal."""
    command, *rest = line.removesuffix(b"\n").split(b"\0")
    if rest and rest.pop():  # each part ends with a NUL, also the last one
        raise Refusal("that is no request of git's own protocol")
    if rest and _HOST.match(rest[0]):
        del rest[0]
    if rest:
        parameters = rest[1:]
        if rest[0] or len(parameters) > 1 or not all(map(_VERSION.match, parameters)):
            raise Refusal("the request has parameters that the gate doesn't take")
    found = _COMMAND.match(command)
    if found is None:
        raise Refusal("the gate serves declared repositories by their names, and nothing else")
    service = SERVICES.get(found[1].decode("ascii"))
    if service is None:
        raise Refusal("the gate serves git's upload-pack and receive-pack alone")
    return Request(service, found[2].decode("ascii"))
