"""argparse's `--help`, told to whoever reads it or not at all, and its errors in a sentence and a hint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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

    def parse_known_args(  # type: ignore[override]  # argparse's overloads for other namespace types are not used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does; a word that a command doesn't know is refused by that command, and the nearest named."""
        found, unknown = super().parse_known_args(args, namespace)
        for word in unknown[:1]:
            if not word.startswith("-"):
                self.error(f"{word[:60]!r} is one argument too many")
            from opsexec.cli.command import nearest

            known = [name for action in self._actions for name in action.option_strings]
            option = word.partition("=")[0][:60]
            raise UsageError(f"unknown option {option!r}", hint=nearest(option, known, self.prog))
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices, naming the nearest one."""
        choices = list(map(str, action.choices or ()))
        if choices and value not in choices:
            from opsexec.cli.command import nearest

            what = "command" if action.metavar == "COMMAND" else str(action.metavar or action.dest)
            raise UsageError(f"unknown {what} {str(value)[:60]!r}", hint=nearest(str(value), choices, self.prog))
