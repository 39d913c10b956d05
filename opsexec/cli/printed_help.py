"""argparse's `--help`, told to whoever reads it or not at all."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class HelpingParser(argparse.ArgumentParser):
    """argparse whose help fails like any other output: its own printing ends well where nothing was written."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help; raises OSError."""
        (file or sys.stdout).write(self.format_help())
