"""`opsexec`, the command line. `main` is the only name others use; `parser` shows the tree of commands."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `ending`): 0 ok, 1 failed, 2 usage, 3 could not run."""
    if argv is None:
        from opsexec.early_interrupt import silent

        silent()
    from opsexec.cli.ending import guarded
    from opsexec.utf8 import speak

    if argv is None:
        speak()
    return guarded(argv)
