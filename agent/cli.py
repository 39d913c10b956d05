"""`ops-agent`: serve, check a config file, ask an agent who it takes you for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agent.services import change_cli
from agent.services import cli as services_cli
from agent.tty import cli as person_cli
from opsexec.cli.asking import ASK, add_completion, complete
from opsexec.cli.ending import all_written, await_children, ended
from opsexec.cli.printed_help import SentenceParser
from opsexec.closed_streams import stand_in
from opsexec.early_interrupt import silent, told
from opsexec.errors import UsageError

T = TypeVar("T")

EPILOG = """examples:
  ops-agent --config /etc/ops-agent/config.toml
  ops-agent check-config /etc/ops-agent/config.toml
  ops-agent doctor local-runtime
  ops-agent whoami agent+unix:///run/ops-agent/agent.sock
  ops-agent consent --wait        (then approve RUN, deny RUN, watch RUN, end RUN)

exit status: 0 ok, 1 the work failed, 2 usage, 3 could not run"""

WHOAMI_EPILOG = """examples:
  ops-agent whoami
  ops-agent whoami --json agent+unix:///run/ops-agent/bottles/web/agent.sock
  ops-agent whoami agent+ssh://deploy@web1
  ops-agent whoami tailnet://web1"""


def _parser() -> argparse.ArgumentParser:
    parser = SentenceParser(
        prog="ops-agent",
        description="The on-host half of opsexec: it proves who asks, holds the host's ceiling, runs steps, audits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="serve with this config.toml until SIGTERM; SIGHUP reloads it")
    parser.add_argument("--version", action="store_true", help="show the version")
    parser.add_argument("--host", metavar="HOST", help="the host a service command is about (also after the command)")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    check = commands.add_parser("check-config", help="check a config file, and say where it is wrong")
    check.add_argument("file", metavar="FILE")
    commands.add_parser("schema", help="print the JSON Schema of a config file (as the JSON that its TOML stands for)")
    who = commands.add_parser(
        "whoami",
        help="ask an agent who it takes you for, and what you may do there",
        epilog=WHOAMI_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    who.add_argument("url", metavar="URL", nargs="?", help="default: agent+unix:///run/ops-agent/agent.sock")
    who.add_argument("--json", action="store_true", help="print one JSON object")
    person_cli.add_commands(commands)
    services_cli.add_commands(commands)
    change_cli.add_commands(commands)
    add_completion(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    stand_in()
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == [ASK, "--"]:
        from agent.completion import values

        return complete(words[2:], parser, values)
    await_children()
    try:
        told()
        with all_written():
            return _run(parser.parse_args(words))
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  # the last resort: each is told in a sentence, by its kind
        return ended(error, "ops-agent")


def _drive(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end; what a `--help` needs not wait for is loaded here."""
    import asyncio

    return asyncio.run(work)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.version:
        from opsexec import __version__

        print(f"ops-agent {__version__}")
        return 0
    if arguments.command == "check-config":
        return _check_config(arguments.file)
    if arguments.command == "schema":
        return _print_schema()
    if arguments.command == "completion":
        from agent.completion import completion

        return completion(arguments.shell)
    if arguments.command == "whoami":
        return _drive(_whoami(arguments.url, arguments.json))
    if arguments.command in services_cli.COMMANDS:
        return _drive(services_cli.run(arguments))
    if arguments.command in change_cli.COMMANDS:
        return _drive(change_cli.run(arguments))
    if arguments.command in person_cli.COMMANDS:
        from opsexec.cli.drive import drive

        return drive(lambda: person_cli.run(arguments))  # a signal puts the terminal back, which may be raw
    if arguments.config is None:
        raise UsageError("--config FILE is missing, or a command", hint="see `ops-agent --help`")
    from agent import told_early
    from agent.config_child import ConfigCheck

    told_early.hold()
    check = ConfigCheck.start(Path(arguments.config))  # at work while the rest of this is loaded
    silent()  # a KeyboardInterrupt in the middle of a compiled module's start has crashed the interpreter
    from agent.say import said_all
    from agent.server import serve

    told()
    try:
        _drive(serve(Path(arguments.config), check))
    finally:
        said_all()
    return 0


def _check_config(file: str) -> int:
    from agent.config import load_config

    config = load_config(file)
    print(f"{file}: ok, {len(config.grants)} grants, listening on {', '.join(config.agent.listen)}")
    return 0


def _print_schema() -> int:
    from agent.config_schema import config_schema

    print(json.dumps(config_schema(), indent=2))
    return 0


async def _whoami(url: str | None, as_json: bool) -> int:
    from opsexec.capability import CapabilitySet
    from opsexec.rpc import AgentRpc
    from opsexec.wire import DEFAULT_SOCKET

    async with AgentRpc(url or f"agent+unix://{DEFAULT_SOCKET}", capabilities=CapabilitySet.nothing()) as agent:
        found = await agent.whoami()
    if as_json:
        print(json.dumps(found))
        return 0
    from agent.whoami_text import whoami_text

    print(whoami_text(found))
    return 0
