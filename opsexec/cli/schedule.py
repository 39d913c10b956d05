"""`opsexec schedule`: what an ops-agent does on its host when the calendar says so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from opsexec.cli.agents import open_agent
from opsexec.cli.arguments import add_host, add_json, add_timeout, add_user
from opsexec.cli.command import Command, count
from opsexec.cli.drive import drive
from opsexec.cli.ending import OK, printable, tell
from opsexec.cli.json_text import json_text
from opsexec.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.rpc import AgentRpc
    from opsexec.steps import Step
    from opsexec.steps.schedule import Scheduled


def _host_arguments(parser: Parser) -> None:
    add_host(parser, many=False)
    add_json(parser)


def _name_arguments(parser: Parser) -> None:
    add_host(parser, many=False)
    parser.add_argument("name", metavar="NAME", help="the schedule's name")
    add_json(parser)


def _change_arguments(parser: Parser) -> None:
    _name_arguments(parser)
    parser.add_argument("--check", action="store_true", help="say what would be done, do nothing")


def _add_arguments(parser: Parser) -> None:
    _change_arguments(parser)
    parser.add_argument(
        "--cron", metavar="EXPR", required=True, help='when, like "0 3 * * 1-5"; six fields: seconds first'
    )
    parser.add_argument("--tz", metavar="ZONE", default="UTC", help="the time zone of it (default UTC)")
    parser.add_argument("--runbook", metavar="FILE", help="run this runbook, on the host alone")
    parser.add_argument("--script", metavar="FILE", help="run this script; needs --action")
    parser.add_argument("--action", metavar="NAME", help="what the script is called in grants and in the audit")
    parser.add_argument(
        "--overlap",
        metavar="POLICY",
        choices=("skip", "queue", "kill"),
        default="skip",
        help="while the last turn goes on: skip, queue (one waits) or kill it (default skip)",
    )
    parser.add_argument(
        "--missed",
        metavar="POLICY",
        choices=("skip", "once", "all"),
        default="skip",
        help="times that passed while no agent was there: skip, once or all (default skip)",
    )
    parser.add_argument(
        "--missed-limit", metavar="N", type=count, default=10, help="at most so many of all (default 10)"
    )
    parser.add_argument("--jitter", metavar="S", type=float, default=0.0, help="begin up to S seconds later")
    parser.add_argument("--disabled", action="store_true", help="keep it, but don't do it yet")
    add_timeout(parser)
    add_user(parser)
    parser.add_argument("--cwd", metavar="DIR", help="directory to run in (default: the home directory)")
    parser.add_argument("--env", metavar="K=V", action="append", default=[], help="set a variable; may be repeated")


def _text(path: str, what: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise UsageError(f"the {what} {path} can't be read: {error.strerror}", hint="name a file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the {what} {path} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error


def _work(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is to be done, as fields of the step; raises UsageError for nothing, and for two things."""
    from opsexec.cli.steps import process_fields
    from opsexec.steps import Exec, Shell

    if sum(bool(each) for each in (args.program, args.runbook, args.script)) != 1:
        hint = "write it after --, or name a file with --runbook, or with --script and --action"
        raise UsageError("a schedule needs one thing to do: a program, a runbook or a script", hint=hint)
    if bool(args.script) != bool(args.action):
        raise UsageError("--script and --action go together", hint="--script FILE --action NAME")
    if args.runbook:
        if args.run_as or args.timeout or args.cwd or args.env:
            raise UsageError("a runbook has its own users, timeouts and environment", hint="write them in it")
        return {"runbook": _text(args.runbook, "runbook")}
    args.env_secret = ()
    fields = process_fields(args)
    step: Scheduled
    if args.script:
        step = Shell(action=args.action, script=_text(args.script, "script"), **fields)
    else:
        step = Exec(tuple(args.program), **fields)
    return {"steps": (step,)}


def _add(args: argparse.Namespace) -> int:
    from opsexec.steps import ScheduleAdd

    step = ScheduleAdd(
        args.name,
        args.cron,
        timezone=args.tz,
        overlap=args.overlap,
        missed=args.missed,
        missed_limit=args.missed_limit,
        jitter_s=args.jitter,
        enabled=not args.disabled,
        **_work(args),
    )
    return _change(args, step, lambda value: f"kept, next at {value.get('next') or '-'}")


def _remove(args: argparse.Namespace) -> int:
    from opsexec.steps import ScheduleRemove

    return _change(args, ScheduleRemove(args.name), lambda value: "removed")


def _enable(args: argparse.Namespace) -> int:
    from opsexec.steps import ScheduleSwitch

    return _change(args, ScheduleSwitch(args.name, True), lambda value: f"enabled, next at {value.get('next') or '-'}")


def _disable(args: argparse.Namespace) -> int:
    from opsexec.steps import ScheduleSwitch

    return _change(args, ScheduleSwitch(args.name, False), lambda value: "disabled")


def _run(args: argparse.Namespace) -> int:
    from opsexec.steps import ScheduleRun

    return _change(args, ScheduleRun(args.name), lambda value: f"begun, as {value.get('run') or '-'}")


def _change(args: argparse.Namespace, step: Step, said: Callable[[dict[str, Any]], str]) -> int:
    """Have the agent do one step on its schedules, and say what came of it."""
    if args.program and args.command_sub != "add":
        raise UsageError(f"schedule {args.command_sub} takes no program", hint="a program goes with schedule add")

    async def work(agent: AgentRpc) -> int:
        output = await agent.run(step, check=args.check)
        value = output.value if isinstance(output.value, dict) else {}
        if args.json:
            print(json_text({"changed": output.changed, "skipped": output.skipped, "value": output.value}))
        elif output.skipped:
            tell(f"{agent.host}: {output.skipped}")
        else:
            print(printable(f"{args.name}: {said(value)}"))
        return OK

    return _ask(args, work)


def _list(args: argparse.Namespace) -> int:
    async def work(agent: AgentRpc) -> int:
        from opsexec.cli.table import print_table

        found = await agent.schedules()
        if args.json:
            print(json_text({"schedules": found}))
        elif found:
            rows = [_row(each) for each in found]
            print_table(["NAME", "NEXT", "LAST", "OWNER", "CRON", "WHAT"], rows)
        else:
            tell(f"{agent.host} has no schedules that you may see", hint="`opsexec schedule add` makes one")
        return OK

    return _ask(args, work)


def _row(schedule: dict[str, Any]) -> list[str]:
    name, owner, cron = (str(schedule.get(each) or "-") for each in ("name", "owner", "cron"))
    return [name, _next(schedule), _last(schedule), owner, cron, _what(schedule)]


def _next(schedule: dict[str, Any]) -> str:
    if schedule.get("running"):
        return "running"
    return str(schedule.get("next") or "-") if schedule.get("enabled") else "disabled"


def _last(schedule: dict[str, Any]) -> str:
    last = schedule.get("last")
    return f"{last.get('state')} {last.get('at')}" if isinstance(last, dict) else "-"


def _what(schedule: dict[str, Any]) -> str:
    steps = schedule.get("steps")
    if not isinstance(steps, list) or not steps:
        return "a runbook"
    if not isinstance(steps[0], dict):
        return "-"
    from opsexec.cli.records import about

    more = f" (and {len(steps) - 1} more)" if len(steps) > 1 else ""
    return f"{steps[0].get('type')} {about(steps[0], {})}{more}"


def _show(args: argparse.Namespace) -> int:
    async def work(agent: AgentRpc) -> int:
        from opsexec.cli.records import print_details

        found = await agent.schedule(args.name)
        if args.json:
            print(json_text(found))
        else:
            print_details([found])
        return OK

    return _ask(args, work)


def _ask(args: argparse.Namespace, work: Callable[[AgentRpc], Coroutine[Any, Any, int]]) -> int:
    async def asked() -> int:
        async with await open_agent(args, args.host) as agent:
            return await work(agent)

    return drive(asked)


COMMANDS = (
    Command(
        name="schedule",
        usage="add|list|show|remove|enable|disable|run HOST [NAME] [OPTIONS]",
        summary="Have a host's ops-agent do steps or a runbook when the calendar says so, without you.",
        description="""
        Have a host's ops-agent do steps or a runbook when the calendar says so, without you.

        Each turn is judged by what you are granted on that host then, narrowed by --cap as it was when you added it.
        It is in the host's audit with its cause (`opsexec audit tail HOST`). No secret can be kept in a schedule.""",
        arguments=lambda parser: None,
        takes_program=True,
        examples=(
            "opsexec schedule add web1 backup --cron '0 3 * * *' --tz Europe/Berlin -- backup --full",
            "opsexec schedule list web1",
            "opsexec schedule run web1 backup",
        ),
        subcommands=(
            Command(
                name="add",
                usage="HOST NAME --cron EXPR [OPTIONS] -- ARGV...",
                summary="Keep a schedule on a host.",
                description="""
                Keep a schedule on a host. Times that daylight saving leaves out are due when the clock is put forward,
                those it has twice the first time. A schedule of the same name must be removed first.""",
                arguments=_add_arguments,
                run=_add,
                examples=(
                    "opsexec schedule add web1 backup --cron '0 3 * * *' --missed once -- /usr/local/bin/backup",
                    "opsexec schedule add web1 tidy --cron '*/10 * * * *' --overlap kill -- tidy /srv",
                    "opsexec schedule add web1 nightly --cron '30 2 * * *' --jitter 600 --runbook nightly.yaml",
                ),
            ),
            Command(
                name="list",
                usage="HOST [OPTIONS]",
                summary="List a host's schedules: your own, and those you may manage.",
                arguments=_host_arguments,
                run=_list,
                examples=(
                    "opsexec schedule list web1",
                    "opsexec schedule list web1 --json | jq -r '.schedules[].next'",
                ),
            ),
            Command(
                name="show",
                usage="HOST NAME [OPTIONS]",
                summary="Show all about one schedule.",
                arguments=_name_arguments,
                run=_show,
                examples=("opsexec schedule show web1 backup",),
            ),
            Command(
                name="remove",
                usage="HOST NAME [OPTIONS]",
                summary="Forget a schedule; a turn that goes on goes on to its end.",
                arguments=_change_arguments,
                run=_remove,
                examples=("opsexec schedule remove web1 backup",),
            ),
            Command(
                name="enable",
                usage="HOST NAME [OPTIONS]",
                summary="Let your schedule be done again, from now on.",
                arguments=_change_arguments,
                run=_enable,
                examples=("opsexec schedule enable web1 backup",),
            ),
            Command(
                name="disable",
                usage="HOST NAME [OPTIONS]",
                summary="Keep a schedule, but don't do it; what is due meanwhile counts for nothing.",
                arguments=_change_arguments,
                run=_disable,
                examples=("opsexec schedule disable web1 backup",),
            ),
            Command(
                name="run",
                usage="HOST NAME [OPTIONS]",
                summary="Begin a turn of your schedule now, and print its run id.",
                arguments=_change_arguments,
                run=_run,
                examples=("opsexec schedule run web1 backup", "opsexec runs list web1"),
            ),
        ),
    ),
)
