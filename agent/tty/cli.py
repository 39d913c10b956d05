"""`ops-agent consent|approve|deny|end|watch`: the person on the host, asked and in charge."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.cli.printed_help import SentenceParser
    from opsexec.rpc import AgentRpc
    from opsexec.rpc_terminals import Question

COMMANDS = ("consent", "approve", "deny", "end", "watch")
DEFAULT_URL = "agent+unix:///run/ops-agent/agent.sock"
MAX_LEFT_S = 1e6
WAIT_S = 30
"""Seconds of one request for questions that may come."""


def add_commands(commands: argparse._SubParsersAction[SentenceParser]) -> None:
    """Add what the person on the host says and asks."""
    consent = commands.add_parser("consent", help="list the terminals that wait for your yes")
    consent.add_argument("--wait", action="store_true", help="wait until there is one")
    consent.add_argument("--json", action="store_true", help="print one JSON object")
    for name, what in (
        ("approve", "say yes to a terminal that waits for it"),
        ("deny", "say no to it"),
        ("end", "end a terminal, and all that runs on it"),
        ("watch", "watch a terminal from its beginning, without typing"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("run", metavar="RUN", help="its run, as `ops-agent consent` shows it")
        if name == "approve":
            command.add_argument("--watch", action="store_true", help="and watch it from its beginning")
    for name in COMMANDS:
        commands.choices[name].add_argument("--url", metavar="URL", default=DEFAULT_URL, help="default: %(default)s")


async def run(arguments: argparse.Namespace) -> int:
    """Do one of COMMANDS; returns the exit status."""
    from opsexec.capability import CapabilitySet
    from opsexec.rpc import AgentRpc

    held = CapabilitySet.of("run.read:*", "run.signal:*")
    async with AgentRpc(arguments.url, capabilities=held) as agent:
        if arguments.command == "consent":
            return await _consent(agent, arguments)
        if arguments.command == "end":
            await agent.signal(arguments.run, "end")
            print(f"{arguments.run}: ended")
            return 0
        if arguments.command in ("approve", "deny"):
            said_yes = arguments.command == "approve"
            await agent.terminals.answer(arguments.run, said_yes)
            if not (said_yes and arguments.watch):
                print(f"{arguments.run}: {'approved' if said_yes else 'denied'}")
                return 0
        from opsexec.cli.watch import watch_run

        return await watch_run(agent.terminals, arguments.run)


async def _consent(agent: AgentRpc, arguments: argparse.Namespace) -> int:
    import msgspec

    questions = await agent.terminals.questions(WAIT_S if arguments.wait else 0)
    while arguments.wait and not questions:
        questions = await agent.terminals.questions(WAIT_S)
    if arguments.json:
        print(json.dumps({"questions": [msgspec.structs.asdict(each) for each in questions]}))
    elif not questions:
        print("nobody asks for a terminal")
    for each in () if arguments.json else questions:
        print(_told(each))
    return 0


def _told(question: Question) -> str:
    """Return a question as a person reads it; nothing in it can steer their terminal, or look like something else."""
    from opsexec.cli.ending import printable

    step = dict(question.step)
    words = json.dumps(step.pop("argv", None), ensure_ascii=True)
    rest = {name: value for name, value in step.items() if value and name not in ("type", "term", "columns", "rows")}
    more = f", with {json.dumps(rest, ensure_ascii=True)}" if rest else ""
    left = round(max(0.0, min(question.until - time.time(), MAX_LEFT_S)))
    asks = printable(f"{question.principal} asks for a terminal: {words}{more}")
    how = printable(f"ops-agent approve {question.run} --watch")
    return f"{asks}\n  {how}    (no answer within {left} s is a no)"
