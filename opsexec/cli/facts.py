"""`opsexec facts` and `opsexec observe`: what hosts say of themselves, once or again and again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from opsexec.cli.arguments import add_host, add_json, add_timeout, add_user
from opsexec.cli.command import Command, count, seconds
from opsexec.cli.drive import drive
from opsexec.cli.json_text import json_text
from opsexec.errors import ProtocolError

if TYPE_CHECKING:
    import argparse

    from opsexec.cli.command import Parser
    from opsexec.cli.results import Result
    from opsexec.cli.streams import Output
    from opsexec.cli.targets import Target
    from opsexec.executor import Stream
    from opsexec.steps import Step

AGENTS = ("agent+", "tailnet:")
"""Schemes of hosts that tell what happens to them by themselves."""

NO_SAMPLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError)
"""What showing a line raises in which the host wrote something else than a sample; OSError: a time out of the world."""


def _arguments(parser: Parser) -> None:
    add_host(parser)
    parser.add_argument("names", metavar="FACT", nargs="*", help="only these facts, like os or disks")
    add_user(parser)
    add_timeout(parser)
    add_json(parser)


def _facts(args: argparse.Namespace) -> int:
    async def work() -> int:
        from opsexec.cli.results import conclude
        from opsexec.cli.steps import run_on_hosts
        from opsexec.steps import Facts

        step = Facts(names=tuple(args.names), run_as=args.run_as, timeout_s=args.timeout)
        results = await run_on_hosts(args, lambda *_: step)
        if not args.json:
            for result in results:
                _print(result, several=len(results) > 1)
        return conclude(results, as_json=args.json)

    return drive(work)


def _print(result: Result, *, several: bool) -> None:
    from opsexec.cli.table import flat

    if result.output is None:
        return
    rows = list(flat(result.output.value))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{f'{result.host} | ' if several else ''}{name:<{width}}  {text}")


def _observe_arguments(parser: Parser) -> None:
    add_host(parser)
    parser.add_argument(
        "names",
        metavar="READING",
        nargs="*",
        help="only these: load memory disks services, of agents also containers runs",
    )
    parser.add_argument("--count", metavar="N", type=count, help="stop after this many samples of each host")
    parser.add_argument(
        "--interval", metavar="S", type=seconds, default=5.0, help="seconds between samples (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a sample, one a line")


def _observe(args: argparse.Namespace) -> int:
    async def work() -> int:
        from opsexec.cli.ending import worst
        from opsexec.cli.steps import run_on_hosts
        from opsexec.steps import Events, Observe
        from opsexec.steps.observe import OBSERVE_NAMES

        def step_for(target: Target, several: bool) -> Step:
            if target.host.url.startswith(AGENTS) or not set(args.names) <= set(OBSERVE_NAMES):
                return Events(names=tuple(args.names), interval_s=args.interval, count=args.count)
            return Observe(names=tuple(args.names), interval_s=args.interval, count=args.count)

        results = await run_on_hosts(args, step_for, sink_for=Samples(args).of_host)
        return worst([result.code for result in results])

    return drive(work)


class Samples:
    """Turns the JSON lines of an Observe step into what is shown."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._json = args.json

    def of_host(self, host: str, output: Output, several: bool) -> Any:
        """Return the sink of one host."""
        from opsexec.sinks import LineSink

        async def show(stream: Stream, line: bytes) -> None:
            try:
                sample = json.loads(line)
                if self._json:
                    text = json_text({"host": host, **sample} | {"host": host})  # whatever host the sample names
                else:
                    text = f"{f'{host} | ' if several else ''}{in_words(sample)}"
            except NO_SAMPLE as error:
                raise ProtocolError("what the host told is no sample", host=host) from error
            await output.write("stdout", text.encode("utf-8", "backslashreplace") + b"\n")

        return LineSink(show)


def in_words(sample: dict[str, Any]) -> str:
    """Return one sample on one line; `-` where the host couldn't tell."""
    from opsexec.cli.ending import printable
    from opsexec.cli.table import size

    parts = [time.strftime("%H:%M:%S", time.localtime(sample["ts"]))]
    if sample.get("event", "sample") not in ("sample", "services"):
        return printable(" | ".join([*parts, event_in_words(sample)]))
    if "load" in sample:
        load = sample["load"] or {}
        values = [load.get(name) for name in ("load1", "load5", "load15")]
        parts.append("load " + " ".join("-" if v is None else f"{v:.2f}" for v in values))
    if "memory" in sample:
        memory: dict[str, Any] = sample["memory"] or {}
        total: Any = memory.get("total_bytes")
        free: Any = memory.get("available_bytes")
        known = total is not None and free is not None
        parts.append("memory " + (f"{size(total - free)} of {size(total)}" if known else "-"))
    if "disks" in sample:
        disks = [d for d in sample["disks"] or () if d.get("used_percent") is not None]
        parts.append("disks " + (" ".join(f"{d['mount']} {d['used_percent']:.0f}%" for d in disks) or "-"))
    if "services" in sample:
        services = sample["services"]
        failed = None if services is None else services.get("failed")
        parts.append("failed services " + ("-" if failed is None else " ".join(failed) or "none"))
    return printable(" | ".join(parts))


def event_in_words(event: dict[str, Any]) -> str:
    """Return what an agent tells, beside samples, in a few words."""
    kind = event["event"]
    if kind == "service":
        return f"service {event['unit']}: {event['was'] or 'not loaded'} -> {event['is'] or 'not loaded'}"
    if kind == "container":
        return f"container {event['name'] or event['id']} ({event['image']}): {event['action']}"
    if kind == "run":
        how = ", ".join(
            f"{name} {event[name]}" for name in ("exit_code", "signal", "error") if event.get(name) is not None
        )
        asked = ", ".join(event.get("requires", ()))
        return f"run {event['run']} of {event['principal']} {event['what']}: {asked or how or 'without a status'}"
    if kind == "dropped":
        return f"{event['count']} events are missing here: they came faster than they were read"
    if kind == "containers":
        return f"container engines: {' '.join(event['engines'])}"
    return f"{event.get('reading', kind)}: {event.get('reason', '')}"


COMMANDS = (
    Command(
        name="facts",
        usage="HOST [FACT...] [OPTIONS]",
        summary="Read facts about a host.",
        description="""
        Read facts about a host: os, kernel, cpu, memory, disks, network, user, python, tools; all of them when
        none is named. One a line as dotted.name and value, `-` where the host can't tell; --json keeps their
        shape (under hosts.NAME.value).""",
        arguments=_arguments,
        run=_facts,
        examples=(
            "opsexec facts web1",
            "opsexec facts web os memory",
            "opsexec facts all disks --json | jq '.hosts[].value.disks'",
        ),
    ),
    Command(
        name="observe",
        usage="HOST [READING...] [OPTIONS]",
        summary="Follow a host's load, memory, disks and failed services.",
        description="""
        Follow a host's load, memory, disks and failed services: one line a sample, until Ctrl-C or --count. An
        ops-agent also tells of services and containers that change, and of runs, as it happens.""",
        arguments=_observe_arguments,
        run=_observe,
        examples=(
            "opsexec observe web1",
            "opsexec observe web load memory --interval 1",
            "opsexec observe all --count 1 --json",
            "opsexec observe agent+unix:///run/ops-agent/agent.sock services runs",
        ),
    ),
)
