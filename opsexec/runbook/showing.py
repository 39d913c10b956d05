"""Which progress fits where it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from opsexec.runbook.progress import PlainProgress, SilentProgress

if TYPE_CHECKING:
    from opsexec.runbook.progress import Progress


def progress_for(out: TextIO, *, json: bool = False) -> Progress:
    """Return what fits: silence with `--json`, a live table on a terminal, else plain lines."""
    if json:
        return SilentProgress()
    if out.isatty():
        from opsexec.runbook.live import LiveProgress

        return LiveProgress(out)
    return PlainProgress(out)
