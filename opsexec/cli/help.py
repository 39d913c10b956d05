"""Help text from the tree of commands, the same everywhere: docs/cli.md is generated from it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.cli.command import Parser

WIDTH = 100
COLUMN = 26

EXIT_CODES = """exit codes:
  0    everything that was asked for was done
  1    the work failed on a host (a program's own status is on stderr and in --json)
  2    the command line, the inventory or the runbook is wrong; nothing was attempted
  3    it could not run: denied, unreachable, no audit, a part is missing
  130  interrupted (Ctrl-C); 143 by SIGTERM, 129 by SIGHUP: what ran on the hosts was ended first
  141  the reader of the output went away
"""


def render(parser: Parser) -> str:
    """Return the help of one command."""
    command = parser.command
    parts = [
        f"usage: {parser.prog} {command.usage}".rstrip() + "\n",
        _paragraph(command.description or command.summary),
    ]
    if parser.subparsers:
        rows = [(name, sub.command.summary) for name, sub in parser.subparsers.items()]
        parts.append("commands:\n" + "".join(_rows(rows)))
    for title, actions in groups(parser):
        parts.append(f"{title}:\n" + "".join(_rows((invocation(a), a.help or "") for a in actions)))
    if command.examples:
        parts.append("examples:\n" + "".join(f"  {line}\n" for line in command.examples))
    if parser.prog == "opsexec":
        parts.append(EXIT_CODES)
    return "\n".join(parts)


def groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield (title, actions) of each group that has something to show: arguments first."""
    titles = {"positional arguments": "arguments", "optional arguments": "options"}
    for group in parser._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
        ]
        if actions:
            yield titles.get(group.title or "", group.title or ""), actions


def invocation(action: argparse.Action) -> str:
    """Return how an argument is written: `-i, --inventory FILE`, or `HOST`."""
    value = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _paragraph(text: str) -> str:
    """Fill paragraphs, however their source is indented."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(block.split()), WIDTH) for block in blocks) + "\n"


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for left, right in rows:
        lines = textwrap.wrap(right, WIDTH - COLUMN) or [""]
        if len(left) > COLUMN - 4:
            yield f"  {left}\n"
        else:
            yield f"  {left:<{COLUMN - 2}}{lines.pop(0)}\n".replace(" \n", "\n")
        for line in lines:
            yield " " * COLUMN + line + "\n"
