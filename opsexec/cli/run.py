"""`opsexec run`: a runbook over the hosts of an inventory. `opsexec caps`: what it needs of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, cast

from opsexec.cli.arguments import FORKS, add_inventory, add_json, add_ssh
from opsexec.cli.command import Command, count
from opsexec.cli.drive import drive
from opsexec.cli.json_text import json_text
from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from opsexec.capability import CapabilitySet
    from opsexec.cli.command import Parser
    from opsexec.executor import Executor
    from opsexec.inventory import InventoryHost
    from opsexec.runbook import Approval, RunOptions


def _arguments(parser: Parser) -> None:
    parser.add_argument("runbook", metavar="RUNBOOK", help="runbook file (YAML)")
    add_inventory(parser)
    parser.add_argument("--limit", metavar="PATTERN", help="only those of the runbook's hosts")
    parser.add_argument("--check", action="store_true", help="say what would change, change nothing")
    parser.add_argument("--diff", action="store_true", help="show what changes in files")
    parser.add_argument("--forks", metavar="N", type=count, default=FORKS, help=f"hosts at once (default {FORKS})")
    parser.add_argument(
        "--var", metavar="K=V", action="append", default=[], help="set a variable; wins over all others"
    )
    parser.add_argument(
        "--tags",
        metavar="T",
        action="append",
        default=[],
        help="only steps with one of these tags: a,b (`always` steps run in any case)",
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with a run after its last good steps")
    parser.add_argument("--yes", action="store_true", help="approve every tier that asks")
    add_json(parser)
    add_ssh(parser)


def _run(args: argparse.Namespace) -> int:
    from opsexec.runbook.loader import load_runbook

    runbook = load_runbook(args.runbook)
    options = _options(args)

    async def work() -> int:
        from opsexec.cli.targets import open_host
        from opsexec.cli.unblocked import LAST_WAIT_S, Unblocked
        from opsexec.inventory import Inventory
        from opsexec.runbook import Engine, Journal, progress_for

        def connect(host: InventoryHost, capabilities: CapabilitySet) -> AbstractAsyncContextManager[Executor]:
            return open_host(host, capabilities, args)

        inventory = await Inventory.load(args.inventory)
        out = Unblocked()
        engine = Engine(
            runbook, inventory, connect, options, progress_for(cast("TextIO", out), json=args.json), Journal()
        )
        try:
            report = await engine.run()
        except BaseException:  # a cancellation as well: what was said is still written
            await out.drain(LAST_WAIT_S)
            raise
        finally:
            if args.json and engine.report.hosts:
                print(json_text(engine.report.as_json()))
        await out.drain()
        return report.exit_code

    return drive(work)


def _options(args: argparse.Namespace) -> RunOptions:
    """Return the engine's options; raises UsageError for a --var without a value."""
    from opsexec.runbook import RunOptions

    given: dict[str, str] = {}
    for pair in args.var:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--var {name[:60]!r} has no value", hint="write it as NAME=VALUE")
        given[name] = value
    return RunOptions(
        limit=args.limit,
        check=args.check,
        diff=args.diff,
        forks=args.forks,
        vars=given,
        tags=[tag.strip() for tags in args.tags for tag in tags.split(",") if tag.strip()],
        yes=args.yes,
        resume=args.resume,
        approver=_approve,
        ask=_ask_secret,
    )


async def _approve(approval: Approval) -> bool:
    """Ask the person at the terminal, on stderr: stdout may be a report that is piped on."""
    from opsexec.cli.streams import read_line
    from opsexec.runbook.options import ask_at_terminal

    if not sys.stdin.isatty():
        return await ask_at_terminal(approval)
    hosts = ", ".join(approval.hosts)
    done = ", ".join(f"{n} {status}" for status, n in approval.totals.items() if n and status != "skipped")
    sys.stderr.write(f"{f'So far: {done}. ' if done else ''}Go on with tier {approval.tier} ({hosts})? [y/N] ")
    sys.stderr.flush()
    answer = await read_line(sys.stdin.fileno())
    return answer.strip().lower() in (b"y", b"yes")


def _ask_secret(prompt: str) -> str:
    """Ask without echo. Ctrl-C must reach this question: the event loop, which hears signals, stands still."""
    import signal

    from opsexec.secret_source import ask_terminal

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return ask_terminal(prompt)
    finally:
        signal.signal(signal.SIGINT, before)


def _caps_arguments(parser: Parser) -> None:
    parser.add_argument("runbook", metavar="RUNBOOK", help="runbook file (YAML)")
    add_json(parser)


def _caps(args: argparse.Namespace) -> int:
    from opsexec.runbook.grants import least_capabilities, users
    from opsexec.runbook.loader import load_runbook

    runbook = load_runbook(args.runbook)
    capabilities, run_as = least_capabilities(runbook), users(runbook)
    if args.json:
        print(json.dumps({"capabilities": capabilities, "run_as": run_as}))
        return 0
    for line in (*capabilities, *(f"run_as:{user}" for user in run_as)):
        print(line)
    return 0


COMMANDS = (
    Command(
        name="run",
        usage="RUNBOOK [OPTIONS]",
        summary="Run a runbook over the hosts of an inventory, tier by tier.",
        description="""
        Run a runbook over the hosts of an inventory: tiers in order, in serial batches, each approved where the
        runbook asks for it. A host that fails stops, the others go on. Every run has a journal: after a failure
        or Ctrl-C, --resume goes on after the last good step of each host.""",
        arguments=_arguments,
        run=_run,
        examples=(
            "opsexec run deploy.yaml --check --diff",
            "opsexec run deploy.yaml --limit 'web,!web3' --var version=1.4.2",
            "opsexec run promote.yaml -i production.toml --forks 50 --yes",
            "opsexec run promote.yaml --resume 20250131-235959-0a1b2c",
            "opsexec run deploy.yaml --tags config,restart --json | jq .totals",
        ),
    ),
    Command(
        name="caps",
        usage="RUNBOOK [OPTIONS]",
        summary="Show the least capabilities a runbook needs.",
        description="""
        Show the least capabilities that admit every step of a runbook, one a line, ready for an inventory's
        `capabilities`; users it becomes come as run_as:USER. Nothing is contacted.""",
        arguments=_caps_arguments,
        run=_caps,
        examples=("opsexec caps deploy.yaml", "opsexec caps deploy.yaml --json | jq -r .capabilities[]"),
    ),
)
