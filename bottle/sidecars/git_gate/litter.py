"""What a git that was ended by force leaves in a mirror, and its removal.

The mirrors lie in the gate's own directory, where nobody else can put a link: nothing here is led astray by one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from bottle.sidecars.git_gate.said import say

INCOMING = "tmp_objdir-*"
"""Quarantines, tmp-objdir.c. Their own git removes them, but not where a signal ends it (git 2.38 and later)."""

UNFINISHED = ("objects/pack/tmp_*", "objects/??/tmp_obj_*", "refs/**/*.lock", "*.lock", "packed-refs.new", "shallow_*")
"""Packs and objects that a fetch hadn't written whole, and locks. No ref's name ends so: git-check-ref-format(1)."""


def remove_incoming(mirror: Path) -> None:
    """Remove every quarantine; for when no push to this mirror is under way."""
    _remove(mirror.glob(f"objects/{INCOMING}"))


def remove_unfinished(mirror: Path) -> None:
    """Remove what else is left; for when nothing fetches into this mirror, and nothing sets its refs."""
    for pattern in UNFINISHED:
        _remove(mirror.glob(pattern))


def _remove(found: Iterable[Path]) -> None:
    for path in list(found):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:  # a git that is just dying may still write there; it is looked for again
            say({"event": "git-litter", "path": str(path)[-200:], "reason": str(error.strerror)})
