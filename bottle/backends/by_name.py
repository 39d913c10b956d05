"""Which backends are built, by their names."""

from __future__ import annotations

from bottle.backends import bwrap, docker
from bottle.backends.base import Backend
from bottle.backends.names import Backend as Name
from opsexec.errors import UsageError

_BUILT: dict[Name, Backend] = {"bwrap": bwrap, "docker": docker}


def backend(name: Name) -> Backend:
    """Return a backend by its name; raises UsageError for one that isn't built."""
    if name not in _BUILT:
        raise UsageError(f"the backend {name} isn't built (decision 0079)", hint="known: " + ", ".join(_BUILT))
    return _BUILT[name]
