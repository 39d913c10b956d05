"""`ops-agent`, and `python -m agent`."""

from __future__ import annotations

import sys

from agent import told_early
from opsexec.early_interrupt import silent
from opsexec.utf8 import speak


def main() -> int:
    """Run the command line; an agent that is about to serve is no longer ended by SIGHUP while that is loaded."""
    silent()
    speak()
    if any(word.startswith("--config") for word in sys.argv[1:]):
        told_early.hold()
    from agent.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
