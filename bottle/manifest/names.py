"""The names a manifest may use, and what each is checked against."""

from __future__ import annotations

import ipaddress
import re

FILE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\.md\Z")
MANIFEST_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
OWN_VARIABLES = frozenset({"BOTTLE_IDENTITY", "BOTTLE_PROMPT", "BOTTLE_SUPERVISE"})
"""What a bottle tells the agent of itself, which nobody else says."""

REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")
SKILL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
TEMPLATE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
BRANCH = re.compile(r"[A-Za-z0-9._/*+@-]{1,200}\Z")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_UPSTREAM = re.compile(
    r"ssh://(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?/(?P<path>[A-Za-z0-9._~/@+-]+)\Z"
)


def host_name(text: str) -> str:
    """Return a DNS name in lower case; raises ValueError for anything else: an address, a port, a wildcard, an IDN.

    An internationalised name is written in its xn-- form: two names that look alike are then two texts.
    """
    name = text.lower()
    if text.endswith("."):
        raise ValueError("ends with a dot; write the name without it")
    if not name.isascii():
        raise ValueError("has letters outside ASCII; write its xn-- form")
    if "*" in name:
        raise ValueError("is a wildcard; routes name exact hosts")
    if _is_address(name) or name.rpartition(".")[2].isdigit() or name.startswith("0x"):
        raise ValueError("is an address; a route names a host")
    if len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):
        raise ValueError("is not a host name (no scheme, port or path)")
    return name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def path_prefix(text: str) -> str:
    """Return an absolute path prefix as it stands; raises ValueError unless it is one way to write one path."""
    if not text.startswith("/"):
        raise ValueError("is not absolute; start it with /")
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\\%?#;*]", text):
        raise ValueError("has a character that a plain path lacks (space, \\, %, ?, #, ;, *)")
    inner = text.rstrip("/").split("/")[1:]
    if "//" in text or any(segment in (".", "..") for segment in inner):
        raise ValueError("has an empty, . or .. segment")
    return text


class Upstream:
    """A git upstream's parts."""

    def __init__(self, url: str) -> None:
        found = _UPSTREAM.match(url)
        if found is None:
            raise ValueError("is not ssh://user@host[:port]/path")
        self.user = found["user"]
        self.host = found["host"].strip("[]").lower()
        self.port = int(found["port"] or 22)
        self.path = found["path"]
        if not 0 < self.port < 65536:
            raise ValueError(f"has port {self.port}")
        if any(segment in ("", ".", "..") for segment in self.path.split("/")):
            raise ValueError("has an empty, . or .. segment in its path")
        if self.host.startswith("-") or self.path.startswith("-"):
            raise ValueError("has a part that begins with a dash")
