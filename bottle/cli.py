"""`bottle`: start, look at, stop and resume agents in sealed bottles. Each command is loaded when it is run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottle.arguments import Parser

COMMANDS = {
    "start": "bottle.starting:start",
    "resume": "bottle.starting:resume",
    "info": "bottle.commands.plans:info",
    "capabilities": "bottle.commands.plans:capabilities",
    "policy": "bottle.commands.plans:policy",
    "list": "bottle.commands.bottles:list_bottles",
    "stop": "bottle.commands.bottles:stop",
    "logs": "bottle.commands.bottles:logs",
    "cleanup": "bottle.commands.bottles:cleanup",
    "restart": "bottle.commands.restart:restart",
    "exec": "bottle.commands.exec:execute",
    "audit": "bottle.commands.audit:audit",
    "verify": "bottle.commands.verify:verify",
    "doctor": "bottle.commands.doctor:doctor",
    "diff": "bottle.commands.workspace:diff",
    "pull": "bottle.commands.workspace:pull",
    "proposals": "bottle.operator.commands:proposals",
    "approve": "bottle.operator.commands:approve_one",
    "reject": "bottle.operator.commands:reject_one",
    "dashboard": "bottle.operator.commands:dashboard",
    "demo": "bottle.demo.run:demo",
    "completion": "bottle.commands.completion:completion",
}
"""Command -> `module:function`, which takes the parsed arguments and returns the exit status."""

TAKING_WORDS = ("start", "exec")
"""Commands to which the words after `--` go as they stand."""
LAUNCHING = ("start", "resume")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    if argv is None:
        from opsexec.early_interrupt import silent

        silent()
    from bottle.arguments import parser
    from bottle.commands.completion import values
    from opsexec.cli.asking import ASK, complete
    from opsexec.closed_streams import stand_in
    from opsexec.early_interrupt import told
    from opsexec.utf8 import speak

    if argv is None:
        speak()
    stand_in()
    whole = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    if own == [ASK]:
        return complete(rest, whole, values)
    from opsexec.cli.ending import INTERRUPTED, all_written, await_children, ended, tell

    await_children()
    try:
        told()
        with all_written():
            return _run(whole, own, rest)
    except KeyboardInterrupt:
        tell("interrupted", program="bottle")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last resort: each is told in a sentence, by its kind
        return ended(error, "bottle")
    finally:
        gc.enable()


def _run(whole: Parser, own: list[str], rest: list[str]) -> int:
    arguments = whole.parse_args(own)
    if arguments.version:
        from opsexec import __version__

        print(f"bottle {__version__}")
        return 0
    if arguments.command is None:
        whole.error("a command is missing")
    if rest and arguments.command not in TAKING_WORDS:
        whole.error(f"words after -- are for {' and '.join(TAKING_WORDS)} only")
    if rest:
        arguments.arguments = rest
    if arguments.command in LAUNCHING:
        gc.disable()  # until it is up: what is read for a launch stays, and looking for what doesn't takes time
    module, _, name = COMMANDS[arguments.command].partition(":")
    return int(getattr(import_module(module), name)(arguments))
