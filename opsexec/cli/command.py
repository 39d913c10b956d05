"""What a command is, and the argument parser that reads it: errors as OpsError, help rendered by `help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from opsexec.cli.printed_help import HelpingParser
from opsexec.errors import UsageError

FEW = 6
"""So many known words fit into a hint."""


class Command(NamedTuple):
    """One command. `usage` is what follows its name; `takes_program`: the words after `--` are the program's.

    `run` returns the exit code; None where `subcommands` do the work. `examples` are whole command lines.
    """

    name: str
    usage: str
    summary: str
    arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int] | None = None
    examples: tuple[str, ...] = ()
    description: str = ""
    takes_program: bool = False
    subcommands: tuple[Command, ...] = ()


class Parser(HelpingParser):
    """argparse with our errors and our help.

    Options are never abbreviated: a new one must not change what old scripts mean.
    """

    command: Command
    subparsers: dict[str, Parser]

    def __init__(self, *, command: Command | None = None, prog: str = "opsexec", **rest: Any) -> None:
        assert command is not None
        super().__init__(prog=prog, allow_abbrev=False, add_help=False)
        self.command = command
        self.subparsers = {}
        self.add_argument("-h", "--help", action="help", help="show this help")

    def parse_known_args(  # type: ignore[override]  # argparse's overloads for other namespace types are not used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse options and arguments in any order: argparse alone fills `[NAME...]` too early."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(words if self.subparsers else self._options_first(words), namespace)

    def _options_first(self, words: Sequence[str]) -> list[str]:
        options: list[str] = []
        plain: list[str] = []
        rest = iter(words)
        for word in rest:
            if word == "--":
                plain += rest
            elif len(word) < 2 or not word.startswith("-"):
                plain.append(word)
            else:
                options.append(word)
                action = self._option_string_actions.get(word)
                if action is not None and action.nargs != 0:
                    options += [value for value in [next(rest, None)] if value is not None]
        return options + (["--"] if any(word[:1] == "-" and word != "-" for word in plain) else []) + plain

    def error(self, message: str) -> NoReturn:
        """Raise UsageError for what argparse found wrong."""
        where = self.prog.removeprefix("opsexec").strip()
        raise UsageError(f"{where}: {message}" if where else message, hint=f"see `{self.prog} --help`")

    def format_help(self) -> str:
        """Return the help text, the same on every Python version and terminal."""
        from opsexec.cli.help import render

        return render(self)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among the choices, naming the nearest one."""
        choices = list(action.choices or ())
        if not choices or value in choices:
            return
        what = "command" if action.dest.startswith("command") else action.metavar or action.dest
        raise UsageError(
            f"unknown {what} {str(value)[:60]!r}",
            hint=nearest(str(value), list(map(str, choices)), self.prog),
        )


def nearest(wrong: str, known: list[str], prog: str) -> str:
    """Return a hint that names the known word most like `wrong`, or where the known ones are listed."""
    import difflib

    near = difflib.get_close_matches(wrong, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return "one of: " + ", ".join(known) if 0 < len(known) <= FEW else f"see `{prog} --help`"


def seconds(text: str) -> float:
    """Return a positive number of seconds; raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def count(text: str) -> int:
    """Return a positive whole number; raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 to 999999999")
    return int(text)


def whole(text: str) -> int:
    """Return a whole number from 0; raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
