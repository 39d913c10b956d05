"""Starts one step on every host a command line selects, through their agents, and leaves it running."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

from opsexec.cli.agents import require_agent
from opsexec.cli.drive import all_at_once, drive, interrupted
from opsexec.cli.ending import OK, say, tell
from opsexec.cli.results import Result, conclude, error_json
from opsexec.cli.steps import at
from opsexec.cli.streams import piped_input
from opsexec.cli.targets import Target, find_targets, open_executor
from opsexec.errors import OpsError, UsageError
from opsexec.executor import RunOutput

if TYPE_CHECKING:
    import argparse

    from opsexec.steps import Step


class Started(Result):
    """A run that was begun on a host (`output` holds its id alone), or why it wasn't."""

    __slots__ = ()

    @property
    def code(self) -> int:
        """The exit code this host alone would come to."""
        return OK if self.error is None else self.error.exit_code

    @property
    def status(self) -> str:
        """As of a Result; what was begun changes its host."""
        return "changed" if self.error is None else super().status

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        error = None if self.error is None else error_json(self.error)
        return {"status": self.status, "run": None if self.output is None else self.output.run, "error": error}


def start_detached(args: argparse.Namespace, step: Step, *, reads_stdin: bool) -> int:
    """Start a step on each host `args` selects, print the runs' ids, and return the exit code."""
    if args.check:
        raise UsageError("--check and --detach don't go together", hint="leave one out")

    async def work() -> int:
        targets = await find_targets(args)
        if reads_stdin and len(targets) == 1 and piped_input() is not None:
            raise UsageError("nothing can be piped into what --detach leaves running", hint="-n gives it no input")
        found: dict[str, Result] = {}

        async def one(target: Target) -> None:
            found[target.name] = result = await _start(target, args, step)
            if not args.json:
                _show(result, args, several=len(targets) > 1)

        await all_at_once([partial(one, target) for target in targets], args.forks)
        return conclude([found[target.name] for target in targets], as_json=args.json)

    return drive(work, "whether all was begun is unknown: see `opsexec runs list HOST`")


async def _start(target: Target, args: argparse.Namespace, step: Step) -> Started:
    try:
        async with require_agent(target, open_executor(target, args)) as agent:
            return Started(target.name, RunOutput(run=await agent.start(step), host=target.name))
    except OpsError as error:
        if interrupted():
            raise
        return Started(target.name, None, at(error, target.name))


def _show(result: Result, args: argparse.Namespace, *, several: bool) -> None:
    """Print a run's id on stdout, and on stderr how to come back to it."""
    if result.error is not None:
        say(result.error)
    elif result.output is not None:
        run = result.output.run
        print(f"{result.host} | {run}" if several else run, flush=True)
        options = [] if args.inventory is None else ["-i", args.inventory]
        words = ["opsexec", "runs", "attach", result.host, run, *options]
        tell(f"{result.host}: begun, and goes on by itself", hint=f"follow it with: {shlex.join(words)}")
