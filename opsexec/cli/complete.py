"""`opsexec completion`: what can stand where on a command line, read off the argument parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from opsexec.cli.command import Command

if TYPE_CHECKING:
    from opsexec.cli.command import Parser

KINDS = {
    "CAPABILITY": "none",
    "DIR": "dir",
    "DST": "file",
    "FILE": "file",
    "FILE|HOST": "file",
    "HOST": "host",
    "LOG": "file",
    "PATTERN": "host",
    "RUNBOOK": "file",
    "SCRIPT": "file",
    "SRC": "file",
    "USER": "user",
}
"""What a metavar stands for; "none" where nothing can be offered. `words:a,b` are the words themselves."""


class Option(NamedTuple):
    """One option: its spellings, its help, and the kind of its value (None = it takes none)."""

    names: tuple[str, ...]
    help: str
    kind: str | None


class Place(NamedTuple):
    """What can follow one command: `where` is its path, like ("audit", "verify"), () the top."""

    where: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    arguments: tuple[str, ...]


def places(parser: Parser, where: tuple[str, ...] = ()) -> Iterator[Place]:
    """Yield the place of every command of a parser, the top first."""
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS]
    yield Place(
        where,
        tuple((name, sub.command.summary) for name, sub in parser.subparsers.items()),
        tuple(
            Option(tuple(a.option_strings), a.help or "", None if a.nargs == 0 else kind_of(a))
            for a in actions
            if a.option_strings
        ),
        tuple(kind_of(a) for a in actions if not a.option_strings and not isinstance(a, argparse._SubParsersAction)),
    )
    for name, sub in parser.subparsers.items():
        yield from places(sub, (*where, name))


def kind_of(action: argparse.Action) -> str:
    """Return what an argument's value is; see KINDS."""
    metavar = str(action.metavar)
    if action.choices is not None:
        return "words:" + ",".join(map(str, action.choices))
    if metavar in ("FACT", "READING"):
        from opsexec.steps.events import EVENT_NAMES
        from opsexec.steps.observe import FACT_NAMES

        return "words:" + ",".join(FACT_NAMES if metavar == "FACT" else EVENT_NAMES)
    return KINDS.get(metavar, "none")


def _arguments(parser: Parser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def _completion(args: argparse.Namespace) -> int:
    from opsexec.cli.parser import build, commands
    from opsexec.cli.shells import RENDER

    print(RENDER[args.shell](list(places(build(commands())))), end="")
    return 0


COMMANDS = (
    Command(
        name="completion",
        usage="SHELL",
        summary="Print a shell's completion script.",
        description="""
        Print the completion script of bash, zsh or fish: commands, options, files, and the hosts of your inventory.""",
        arguments=_arguments,
        run=_completion,
        examples=(
            "opsexec completion bash > ~/.local/share/bash-completion/completions/opsexec",
            "opsexec completion zsh > ~/.zfunc/_opsexec",
            "opsexec completion fish > ~/.config/fish/completions/opsexec.fish",
        ),
    ),
)
