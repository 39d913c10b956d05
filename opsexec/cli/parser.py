"""The tree of commands, and parsing a command line with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from opsexec.cli.command import Command, Parser, nearest
from opsexec.errors import UsageError

if TYPE_CHECKING:
    from typing import NoReturn

GROUPS = {
    "exec": "exec shell",
    "run": "run caps",
    "sync": "push pull",
    "tty": "tty",
    "replay": "replay",
    "facts": "facts observe",
    "hosts": "hosts actions",
    "audit": "audit",
    "runs": "runs",
    "schedule": "schedule",
    "schema": "schema",
    "complete": "completion",
}
"""Module -> its commands, in the order that help shows them; a command line loads the one it needs."""


def commands(name: str | None = None) -> list[Command]:
    """Return every command, or (in a list) the one of that name; none for an unknown name."""
    found = []
    for module, names in GROUPS.items():
        if name is None or name in names.split():
            loaded: tuple[Command, ...] = import_module(f"opsexec.cli.{module}").COMMANDS
            found += [command for command in loaded if name is None or command.name == name]
    return found


def names() -> list[str]:
    """Return the names of all commands."""
    return [name for names in GROUPS.values() for name in names.split()]


TOP = Command(
    name="opsexec",
    usage="COMMAND [OPTIONS]",
    summary="Run typed, capability-gated steps on local and SSH hosts; every decision is audited.",
    description="""
    Run typed, capability-gated steps on local and SSH hosts; every decision is audited.

    HOST is an inventory name, a pattern (web, 'web*', 'web,!web3', 'web,&prod', all) or an executor URL
    (local:, ssh://[user@]host[:port], tailnet://NAME, and agent+unix://, agent+ssh://, agent+tcp:// for a host's
    ops-agent). `opsexec COMMAND --help` shows a command's options and examples.""",
    arguments=lambda parser: None,
    examples=(
        "opsexec exec web1 -- uptime",
        "opsexec exec 'web,&prod' --sudo -- systemctl restart nginx",
        "opsexec exec ssh://deploy@10.0.0.5 -- df -h",
        "opsexec run deploy.yaml --check --diff",
        "opsexec audit verify",
    ),
)


def build(chosen: Sequence[Command]) -> Parser:
    """Return the parser of these commands under `opsexec`."""
    top = Parser(command=TOP)
    top.add_argument("--version", action=_Version, nargs=0, help="show the version")
    _add(top, chosen, "command")
    return top


def _add(parser: Parser, chosen: Sequence[Command], dest: str) -> None:
    subparsers = parser.add_subparsers(dest=dest, metavar="COMMAND", parser_class=Parser)
    for command in chosen:
        sub = subparsers.add_parser(command.name, command=command)
        parser.subparsers[command.name] = sub
        command.arguments(sub)
        sub.set_defaults(handler=command.run or _missing, parser=sub)
        if command.subcommands:
            _add(sub, command.subcommands, dest + "_sub")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line (without the program's name); raises UsageError.

    Words after `--` are split off first for commands that take a program: argparse handles them
    differently from one Python version to the next.
    """
    words = list(argv)
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or words[0] in ("-h", "--help", "--version"):
        chosen = commands()
    else:
        chosen = commands(name)
        if not chosen:
            raise UsageError(f"unknown command {name[:60]!r}", hint=nearest(name, names(), "opsexec"))
    program: list[str] | None = None
    if len(chosen) == 1 and chosen[0].takes_program and "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    args, unknown = build(chosen).parse_known_args(words)
    if unknown:
        _refuse(min(unknown, key=lambda word: words.index(word) if word in words else len(words)), args)
    if getattr(args, "handler", None) is None:
        raise UsageError("no command was given", hint="see `opsexec --help`")
    if chosen[0].takes_program:
        args.program = program
    return args


def _missing(args: argparse.Namespace) -> int:
    raise UsageError(
        f"{args.parser.prog} needs one of: {', '.join(args.parser.subparsers)}",
        hint=f"see `{args.parser.prog} --help`",
    )


def _refuse(word: str, args: argparse.Namespace) -> NoReturn:
    parser: Parser | None = getattr(args, "parser", None)
    prog = "opsexec" if parser is None else parser.prog
    if not word.startswith("-") and parser is not None and parser.command.takes_program:
        raise UsageError(
            f"{word[:60]!r} is one argument too many", hint=f"a program goes after --: {prog} HOST -- ARGV"
        )
    if not word.startswith("-"):
        raise UsageError(f"{word[:60]!r} is one argument too many", hint=f"see `{prog} --help`")
    known = (
        ["--help", "--version"]
        if parser is None
        else [name for action in parser._actions for name in action.option_strings]
    )
    option = word.partition("=")[0]
    if parser is not None and option in known:
        raise UsageError(f"{option} is before the command it belongs to", hint=f"write it after it: {prog} {option}")
    raise UsageError(f"unknown option {option[:60]!r}", hint=nearest(word, known, prog))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from opsexec import __version__

        print(f"opsexec {__version__}")
        parser.exit()
