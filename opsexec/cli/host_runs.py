"""Runs on a host, as its ops-agent keeps them: list, show, follow, end."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from opsexec.cli.agents import open_agent
from opsexec.cli.drive import drive
from opsexec.cli.ending import OK, tell
from opsexec.cli.json_text import json_text
from opsexec.errors import OpsError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.rpc import AgentRpc


def list_runs(args: argparse.Namespace) -> int:
    """Print the runs of a host that one may see, the oldest first."""

    async def work(agent: AgentRpc) -> int:
        from opsexec.cli.table import print_table

        runs = (await agent.runs())[::-1]
        if args.json:
            print(json_text({"runs": runs}))
        elif runs:
            rows = [_row(each) for each in runs]
            print_table(["RUN", "STATE", "BEGUN", "WHO", "WHAT"], rows)
        else:
            tell(f"{agent.host} keeps no runs that you may see")
        return OK

    return _ask(args, args.host, work)


def _row(run: dict[str, Any]) -> list[str]:
    from opsexec.cli.records import about

    name, state, who = (str(run.get(each) or "-") for each in ("run", "state", "principal"))
    step = run.get("step")
    what = f"{step.get('type')} {about(step, {})}" if isinstance(step, dict) else "-"
    return [name, state, _when(run.get("begun")), who, what]


def _when(begun: object) -> str:
    """Return an agent's time as this machine's clock shows it; "-" for what is none."""
    if not isinstance(begun, (int, float)) or not 0 <= begun < 1e11:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun))


def show_run(args: argparse.Namespace, host: str, run: str) -> int:
    """Print all that a host's agent tells of a run."""

    async def work(agent: AgentRpc) -> int:
        from opsexec.cli.records import print_details

        found = [each for each in await agent.runs() if str(each.get("run")).startswith(run)]
        if not found:
            raise UsageError(
                f"{agent.host} keeps no run {run} that you may see", hint=f"see `opsexec runs list {host}`"
            )
        if args.json:
            print(json_text({"runs": found}))
        else:
            print_details([each | {"begun": _when(each.get("begun"))} for each in found])
        return OK

    return _ask(args, host, work)


def attach_run(args: argparse.Namespace) -> int:
    """Follow a run's output to its end, and return what its own exit comes to."""

    async def work(agent: AgentRpc) -> int:
        from opsexec.cli.results import Result, conclude
        from opsexec.cli.streams import Output

        sink = None if args.json else Output()
        try:
            result = Result(agent.host, await agent.attach(args.run, sink, offset=args.offset))
        except OpsError as error:
            if not args.json:
                raise
            result = Result(agent.host, None, error)
        if not args.json:
            result.tell()
        return conclude([result], as_json=args.json)

    return _ask(args, args.host, work, "the run goes on")


def kill_run(args: argparse.Namespace) -> int:
    """End a run with all it started, or send it a signal."""

    async def work(agent: AgentRpc) -> int:
        await agent.signal(args.run, args.signal)
        return OK

    return _ask(args, args.host, work, "whether the run was told is unknown")


def _ask(
    args: argparse.Namespace,
    host: str,
    work: Callable[[AgentRpc], Coroutine[Any, Any, int]],
    when_left: str = "nothing was changed",
) -> int:
    async def asked() -> int:
        async with await open_agent(args, host) as agent:
            return await work(agent)

    return drive(asked, when_left)
