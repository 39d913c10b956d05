"""Runs one step on every host a command line selects, and shows what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opsexec.cli.drive import all_at_once, interrupted
from opsexec.cli.results import Result, conclude
from opsexec.cli.streams import Output, Prefixed, piped_input
from opsexec.cli.targets import Target, find_targets, open_executor
from opsexec.errors import OpsError, UsageError

if TYPE_CHECKING:
    import argparse

    from opsexec.executor import LogSink
    from opsexec.secret import Secret
    from opsexec.steps import Step

SinkFor = Callable[[str, Output, bool], "LogSink"]
"""Makes the sink of one host (by name) from the command's output; the last says whether there are several hosts."""


async def run_on_hosts(
    args: argparse.Namespace,
    step_for: Callable[[Target, bool], Step],
    *,
    reads_stdin: bool = False,
    sink_for: SinkFor | None = None,
    check: bool = False,
    diff: bool = False,
) -> list[Result]:
    """Run `step_for(target, whether there are several)` on each host `args` selects; results in host order.

    One host: its output is the command's own, byte for byte, and piped input is streamed to it. Several:
    whole lines, each `host | line`. With --json output goes into the results alone. `sink_for` shows it in
    another way.
    """
    targets = await find_targets(args)
    several = len(targets) > 1
    steps = [step_for(target, several) for target in targets]
    stdin = piped_input() if reads_stdin and not several else None
    output = Output() if sink_for is not None or not args.json else None
    results: dict[str, Result] = {}

    async def one(target: Target, step: Step) -> None:
        sink: LogSink | None = output
        prefixed: Prefixed | None = None
        if sink_for is not None and output is not None:
            sink = sink_for(target.name, output, several)
        elif several and output is not None:
            sink = prefixed = Prefixed(target.name, output)
        try:
            async with open_executor(target, args) as executor:
                done = await executor.run_streaming(step, sink, check=check, diff=diff, stdin=stdin)
            result = Result(target.name, done)
        except OpsError as error:
            if interrupted():
                raise
            result = Result(target.name, None, at(error, target.name))
        if prefixed is not None:
            await prefixed.close()
        results[target.name] = result
        if not args.json or sink_for is not None:
            result.tell()

    await all_at_once([_bound(one, t, s) for t, s in zip(targets, steps, strict=True)], getattr(args, "forks", 1))
    return [results[target.name] for target in targets]


def _bound(one: Callable[..., Any], *args: object) -> Callable[[], Any]:
    return lambda: one(*args)


def at(error: OpsError, host: str) -> OpsError:
    """Return the error, naming its host even where whoever raised it didn't know it."""
    if error.host is None:
        error.host = host
    return error


async def run_and_conclude(args: argparse.Namespace, step_for: Callable[[Target, bool], Step], **how: Any) -> int:
    """As `run_on_hosts`; returns the exit code."""
    return conclude(await run_on_hosts(args, step_for, **how), as_json=args.json)


def environment(args: argparse.Namespace) -> dict[str, str | Secret]:
    """Return what --env and --env-secret set; raises UsageError."""
    import os

    from opsexec.secret import Secret

    env: dict[str, str | Secret] = {}
    for pair in args.env:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--env {name[:60]!r} has no value", hint="write it as NAME=VALUE")
        env[name] = value
    for name in args.env_secret:
        secret = os.environ.get(name)
        if secret is None:
            raise UsageError(f"--env-secret {name[:60]!r} is not set in this environment", hint=f"export {name} first")
        env[name] = Secret(secret)
    return env


def process_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that Exec and Shell share, from the options of `arguments.add_process`."""
    return {"env": environment(args), "cwd": args.cwd, "run_as": args.run_as, "timeout_s": args.timeout}
