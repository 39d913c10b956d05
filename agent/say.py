"""What an agent tells the operator: lines on stderr, which is a journal, a file or a terminal."""

from __future__ import annotations

import sys

from opsexec.cli.ending import forget


def say(text: str) -> None:
    """Say one line; where it can't be written (a full disk, a reader who has gone) the agent goes on without it."""
    try:
        print(f"ops-agent: {text}", file=sys.stderr, flush=True)
    except OSError:
        return


def said_all() -> None:
    """Have what was kept written, at the end; what still can't be is given up: it has no say in the exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        forget(sys.stderr)
