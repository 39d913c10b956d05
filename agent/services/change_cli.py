"""The service commands that change a host, or tell of one service: `ops-agent install web --execute`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from agent.services.doctor import Request
    from agent.services.outcome import Outcome
    from opsexec.executor import Executor

CHANGING = {
    "stage": "make a declared service's wrapper and unit, put them aside, judge them",
    "install": "stage a declared service, install what passed, enable what is declared enabled",
    "start": "start a service that is installed, enabled and passes its preflight",
    "stop": "stop a service",
    "restart": "restart a service that passes its preflight",
    "uninstall": "take away what an install put there",
    "quarantine": "capture evidence, then stop, withdraw and mask a service",
    "release": "undo a quarantine",
    "repair": "do the fixes that destroy nothing",
}
TELLING = {"status": "tell what a service is", "logs": "show what a service said", "list": "list the services here"}
COMMANDS = (*CHANGING, *TELLING)
EPILOG = """Without --execute the plan is printed, and nothing is changed.

exit status: 0 done (or it could be), 1 it failed or a preflight didn't pass, 2 usage, 3 could not run"""


def add_commands(commands: Any) -> None:
    """Add the commands to `ops-agent`'s own."""
    from agent.services.cli import add_connection

    for name, text in {**CHANGING, **TELLING}.items():
        raw = argparse.RawDescriptionHelpFormatter
        parser = commands.add_parser(name, help=text, epilog=EPILOG if name in CHANGING else None, formatter_class=raw)
        if name != "list":
            parser.add_argument("name", metavar="NAME", help="the service")
        if name in CHANGING:
            parser.add_argument("--execute", action="store_true", help="do it; without this only the plan is printed")
        if name == "release":
            parser.add_argument("--start", action="store_true", help="start it, too")
        if name == "logs":
            parser.add_argument("-n", "--lines", type=int, default=200, help="how many lines (default 200)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        add_connection(parser)


async def run(arguments: argparse.Namespace) -> int:
    """Run one of the commands; returns the exit status, raises OpsError."""
    from agent.services.acts import ActingAs
    from opsexec.cli.targets import find_target, open_executor

    request = _request(arguments)
    executed = bool(getattr(arguments, "execute", False))
    arguments.host = getattr(arguments, "host", None) or "local:"
    target = await find_target(arguments)
    async with open_executor(target, arguments) as executor:
        acting = executor if request.run_as is None else cast("Executor", ActingAs(executor, request.run_as))
        outcome = await _do(arguments, acting, request, executed)
        host = executor.host
    telling = arguments.command in TELLING
    if arguments.json:
        sys.stdout.write(outcome.as_json(host, arguments.command, request.name, executed))
    else:
        sys.stdout.write(outcome.human(executed=executed or telling))
    sys.stdout.flush()
    return 0 if outcome.ok else 1


def _request(arguments: argparse.Namespace) -> Request:
    from agent.services.cli import read_file
    from agent.services.doctor import Request

    declaration = None
    if arguments.declaration is not None:
        from agent.services.declaration import parse_declaration

        declaration = parse_declaration(read_file(arguments.declaration), arguments.declaration)
    return Request(getattr(arguments, "name", "all"), (), arguments.user, declaration, run_as=arguments.run_as)


def _say(text: str) -> None:
    from opsexec.handlers.diffs import shown

    print(shown(text), file=sys.stderr, flush=True)


async def _do(arguments: argparse.Namespace, executor: Executor, request: Request, execute: bool) -> Outcome:
    from agent.services import control

    match arguments.command:
        case "stage" | "install":
            from agent.services import install

            step = install.stage if arguments.command == "stage" else install.install
            return await step(executor, request, execute=execute, say=_say)
        case "quarantine":
            from agent.services.quarantine import quarantine

            return await quarantine(executor, request, execute=execute, say=_say)
        case "release":
            from agent.services.release import release

            return await release(executor, request, execute=execute, start=arguments.start, say=_say)
        case "start" | "restart":
            again = arguments.command == "restart"
            return await control.start(executor, request, execute=execute, again=again, say=_say)
        case "stop":
            return await control.stop(executor, request, execute=execute, say=_say)
        case "uninstall":
            return await control.uninstall(executor, request, execute=execute, say=_say)
        case "repair":
            return await control.repair(executor, request, execute=execute, say=_say)
        case "status":
            return await control.status(executor, request)
        case "logs":
            return await control.logs(executor, request, lines=arguments.lines)
        case _:
            return await control.list_services(executor, user=arguments.user, run_as=request.run_as)
