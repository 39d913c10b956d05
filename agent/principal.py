"""Principals: who the kernel says is at the other end of a unix socket, and which names of theirs can ever match."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from agent.errors import BadConfig
from opsexec.hosts.tailnet_node import is_login, is_tag

_CREDENTIALS = struct.Struct("3i")
NAME_TTL_S = 5.0
"""Seconds a user's name is remembered: a connection's uid never changes, whom it names may."""

BOTTLE = "bottle:"
"""What a bottle's principal begins with; only a socket of its own proves it."""

LOOK_UP_FDS = 4
"""Descriptors that finding a user's name may take at once: files, and the sockets of name services."""

UidOf = Callable[[str], int | None]
"""Says the uid of a user's name on a host; None where the host has no such user."""

_names: dict[int, tuple[float, str | None]] = {}


def peer_principal(connection: socket.socket) -> str | None:
    """Return `unix:<user>` of who connected, as the kernel noted it then (unix(7), SO_PEERCRED); None for nobody known.

    A uid without a name is `unix:<uid>`, unless that text is another user's name. Where no names can be looked up,
    nobody is known: a user whose name isn't found for want of a descriptor would look like one who has none.
    """
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(data)
    now = time.monotonic()
    known = _names.get(uid)
    if known is None or now - known[0] > NAME_TTL_S:
        if len(_names) > 4096:
            _names.clear()
        if not _can_look_up():
            return None
        known = _names[uid] = (now, _name(uid))
    return None if known[1] is None else f"unix:{known[1]}"


def _can_look_up() -> bool:
    """True while there are the descriptors that a look-up takes; pwd says the same KeyError for none as for nobody."""
    held: list[int] = []
    try:
        for _ in range(LOOK_UP_FDS):
            held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for fd in held:
            os.close(fd)
    return True


def _name(uid: int) -> str | None:
    if uid in (-1, overflow_uid()):
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    owner = uid_here(name)
    return name if owner in (None, uid) else None


def uid_here(name: str) -> int | None:
    """Return the uid of a user of this host; None for nobody."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


@cache
def overflow_uid() -> int:
    """Return the uid that stands for every user of another namespace who has none here (user_namespaces(7)).

    Whoever shows as it is nobody in particular: it proves no identity, whatever name it has.
    """
    return int(Path("/proc/sys/kernel/overflowuid").read_text())


def check_principal(principal: str, proven: Collection[str], uid_of: UidOf | None = None) -> None:
    """Raise BadConfig for a principal that no listener of this agent can ever prove. `uid_of`: None = `uid_here`."""
    kind, colon, name = principal.partition(":")
    if not colon or kind not in ("unix", "tailnet", "bottle"):
        raise BadConfig(f"{principal!r} is not a principal", hint='like "unix:deploy"')
    if kind not in proven:
        raise BadConfig(
            f"nobody can be {principal!r}: no listener proves {kind} principals", hint='use "unix:<user>", or remove it'
        )
    if kind == "tailnet":
        _check_tailnet(principal, name)
        return
    if kind == "bottle":
        return  # its name is held against the addresses, which say all there are
    uid = int(name) if name.isascii() and name.isdigit() else (uid_of or uid_here)(name)
    if uid == overflow_uid():
        text = f"{principal!r} is no identity: users of other namespaces show as it too"
        raise BadConfig(text, hint="give the program a user of its own")
    if uid is None:
        raise BadConfig(f"nobody can be {principal!r}: there is no such user here", hint="create the user first")


def _check_tailnet(principal: str, name: str) -> None:
    """Raise BadConfig for what is no login and no one tag: grants name one tag, a node may have several."""
    if not (is_tag(name) or is_login(name)):
        hint = 'like "tailnet:alice@example.com" or "tailnet:tag:ci"'
        raise BadConfig(f"nobody can be {principal!r}: it is no login and no tag", hint=hint)


def alternatives(principal: str | None) -> tuple[str, ...]:
    """Return the names under which grants may be for a principal: a node with several tags is each of them."""
    if principal is None:
        return ()
    if principal.startswith(BOTTLE):
        return (principal, f"{BOTTLE}*")
    if not principal.startswith("tailnet:tag:"):
        return (principal,)
    return tuple(f"tailnet:{tag}" for tag in principal.removeprefix("tailnet:").split(","))
