"""What ~/.ssh/config includes: files that others may write are refused before anything of them is read as settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from opsexec.errors import UsageError
from opsexec.hosts.asyncssh_loader import asyncssh

MAX_DEPTH = 16
"""Files that include each other, as deep as ssh(1) goes (READCONF_MAX_DEPTH)."""


def require_own(path: Path) -> None:
    """Raise UsageError for a configuration that others may write: its ProxyCommand and Match exec are run here."""
    status = path.stat()
    if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise UsageError(f"{path} may be written by others", hint=f"after checking it: chmod 0600 {path}")


def check_included(files: Iterable[str]) -> None:
    """Raise UsageError when one of these files includes, at any depth, one that others may write.

    As ssh(1) does (readconf.c): also for files that were named to it, and for an Include below a Match that doesn't
    hold. Raises asyncssh.ConfigParseError and OSError for what can't be read.
    """
    for file in files:
        _Includes(None, False, False, False).parse(Path(file))


class _Includes(asyncssh.config.SSHConfig):
    """Finds Include lines as asyncssh finds them; takes nothing else, so that no Match is asked."""

    _conditionals: set[str] = set()  # noqa: RUF012  # declared by asyncssh
    _handlers = {"include": ("Include", asyncssh.config.SSHConfig._include)}  # noqa: RUF012
    _depth = 0

    def parse(self, path: Path) -> None:
        if self._depth:
            require_own(path)
        if self._depth > MAX_DEPTH:
            raise UsageError(f"{path} is included over {MAX_DEPTH} deep", hint="does a file include itself?")
        self._depth += 1
        super().parse(path)
        self._depth -= 1

    def _set_tokens(self) -> None:
        """Nothing is filled in."""
