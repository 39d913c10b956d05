"""argparse's `--help`, told to whoever reads it or not at all, and its errors in a sentence and a hint."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from opsexec.errors import UsageError

if TYPE_CHECKING:
    from typing import NoReturn

    from _typeshed import SupportsWrite


class HelpingParser(argparse.ArgumentParser):
    """argparse whose help fails like any other output: its own printing ends well where nothing was written."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help; raises OSError."""
        (file or sys.stdout).write(self.format_help())


class SentenceParser(HelpingParser):
    """argparse with errors of ours, one sentence and a hint. Options are never abbreviated: a new one changes none."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **rest})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError for what argparse found wrong."""
        where = self.prog.partition(" ")[2]
        raise UsageError(f"{where}: {message}" if where else message, hint=f"see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices, naming the nearest one."""
        choices = list(map(str, action.choices or ()))
        if choices and value not in choices:
            from opsexec.cli.command import nearest

            what = "command" if action.metavar == "COMMAND" else str(action.metavar or action.dest)
            raise UsageError(f"unknown {what} {str(value)[:60]!r}", hint=nearest(str(value), choices, self.prog))
