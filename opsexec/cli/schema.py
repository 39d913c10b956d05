"""`opsexec schema`: JSON Schemas of the files that people write, for editors and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsexec.cli.command import Command
from opsexec.cli.json_text import json_text

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser

NAMES = ("runbook", "inventory", "agent-config")
"""As in opsexec.schema, which is loaded when it is needed."""


def _arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", choices=NAMES, help="runbook, inventory or agent-config")


def _schema(args: argparse.Namespace) -> int:
    from opsexec.schema import schema

    print(json_text(schema(args.name), indent=2))
    return 0


COMMANDS = (
    Command(
        name="schema",
        usage="NAME",
        summary="Print the JSON Schema of a kind of file.",
        description="""
        Print the JSON Schema of runbooks, of inventories (as the JSON that their TOML stands for), or of ops-agent's
        configuration.""",
        arguments=_arguments,
        run=_schema,
        examples=("opsexec schema runbook > runbook.schema.json", "opsexec schema inventory"),
    ),
)
