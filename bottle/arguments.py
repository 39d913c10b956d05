"""The command line of `bottle`, as a parser."""

from __future__ import annotations

import argparse
from typing import Any

from bottle.backends.names import BACKENDS
from opsexec.cli.asking import add_completion
from opsexec.cli.printed_help import SentenceParser

EPILOG = """examples:
  bottle start reviewer --cwd
  bottle start builder --dry-run -- make test
  bottle capabilities reviewer
  bottle policy check reviewer https://api.example.com/v1/models
  bottle list; bottle stop reviewer-1f2e3d4c; bottle resume reviewer-1f2e3d4c
  bottle exec reviewer-1f2e3d4c -- bash; bottle verify reviewer-1f2e3d4c; bottle audit reviewer-1f2e3d4c --refused
  bottle diff reviewer-1f2e3d4c; bottle pull reviewer-1f2e3d4c --apply
  bottle completion bash > ~/.local/share/bash-completion/completions/bottle

exit status: the agent's own; 1 the work failed, 2 usage, 3 could not run"""


EXAMPLES = {
    "start": (
        "start reviewer --cwd",
        "start builder --dry-run --json -- make test",
        "start reviewer -y --json -- -p 'look' | jq -r .stdout",
    ),
    "info": ("info reviewer", "info reviewer --backend docker --json"),
    "capabilities": ("capabilities reviewer --cwd", "capabilities reviewer --host agent+ssh://build1 --json"),
    "policy": ("policy check reviewer https://api.example.com/v1/models",),
    "policy check": (
        "policy check reviewer https://api.example.com/v1/models",
        "policy check reviewer https://api.example.com/v1/chat POST --json",
    ),
    "list": ("list", "list --all --json"),
    "stop": ("stop reviewer-1f2e3d4c",),
    "resume": ("resume reviewer-1f2e3d4c", "resume reviewer-1f2e3d4c -y --limit memory=8g --json"),
    "logs": ("logs reviewer-1f2e3d4c egress", "logs reviewer-1f2e3d4c --json | jq -r .source"),
    "restart": ("restart reviewer-1f2e3d4c pipelock",),
    "exec": ("exec reviewer-1f2e3d4c -- bash", "exec reviewer-1f2e3d4c --json -- git log --oneline"),
    "audit": ("audit reviewer-1f2e3d4c --refused", "audit reviewer-1f2e3d4c --last 20 --json"),
    "verify": ("verify reviewer-1f2e3d4c", "verify reviewer-1f2e3d4c --json"),
    "doctor": ("doctor", "doctor --backend docker --json"),
    "diff": ("diff reviewer-1f2e3d4c", "diff reviewer-1f2e3d4c --take .github"),
    "pull": ("pull reviewer-1f2e3d4c --apply", "pull reviewer-1f2e3d4c -o - | git apply"),
    "proposals": ("proposals", "proposals --json"),
    "approve": ("approve 3f9a1c", "approve 3f9a1c --as less.json"),
    "reject": ("reject 3f9a1c --reason 'use the mirror'",),
    "dashboard": ("dashboard",),
    "cleanup": ("cleanup", "cleanup --all", "cleanup --host ssh://build1"),
    "demo": ("demo",),
    "completion": ("completion bash > ~/.local/share/bash-completion/completions/bottle",),
}
"""What each command's help shows of it, without `bottle`."""


class Parser(SentenceParser):
    """A command's parser, with its examples."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        if self.epilog is None:
            lines = EXAMPLES.get(self.prog.removeprefix("bottle").strip(), ())
            self.epilog = "\n".join(["examples:", *(f"  bottle {line}" for line in lines)]) if lines else None


def parser() -> Parser:
    """Return the parser; `arguments.run` names the command."""
    whole = Parser(
        prog="bottle",
        description="Run a coding agent in a sealed bottle: what its manifest doesn't grant isn't there.",
        epilog=EPILOG,
    )
    whole.add_argument("--version", action="store_true", help="show the version")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")

    start = commands.add_parser(
        "start", help="start an agent in a new bottle", usage="bottle start AGENT [OPTION...] [-- ARG...]"
    )
    _agent(start)
    start.add_argument("--cwd", action="store_true", help="copy this directory into the bottle and work there")
    _host(start)
    start.add_argument("--dry-run", action="store_true", help="show the summary and every step; start nothing")
    _launching(start)
    start.set_defaults(arguments=[])

    info = commands.add_parser("info", help="show what an agent's bottle would be")
    _agent(info)
    _json(info)
    needs = commands.add_parser("capabilities", help="show the least a host must grant for this agent's bottle")
    _agent(needs)
    needs.add_argument("--cwd", action="store_true", help="for a start with --cwd")
    _host(needs)
    _json(needs)

    policy = commands.add_parser("policy", help="ask an agent's egress policy")
    inner = policy.add_subparsers(dest="question", metavar="QUESTION", required=True)
    check = inner.add_parser("check", help="would this request be let out? exits 1 when not")
    _agent(check)
    check.add_argument("url", metavar="URL")
    check.add_argument("method", metavar="METHOD", nargs="?", default="GET")
    _json(check)

    listing = commands.add_parser("list", help="show the running bottles")
    listing.add_argument("--all", action="store_true", help="and those that can be resumed or cleaned up")
    _json(listing)
    stop = commands.add_parser("stop", help="end a bottle; it can be resumed")
    stop.add_argument("identity", metavar="ID")
    _json(stop)
    resume = commands.add_parser("resume", help="start a stopped bottle again, where it was")
    resume.add_argument("identity", metavar="ID")
    _launching(resume)
    logs = commands.add_parser("logs", help="show what a bottle's daemons said")
    logs.add_argument("identity", metavar="ID")
    logs.add_argument("daemon", metavar="DAEMON", nargs="?")
    logs.add_argument("--json", action="store_true", help="print one JSON object a line")
    again = commands.add_parser("restart", help="end one of a bottle's daemons and start it again, with the same CA")
    again.add_argument("identity", metavar="ID")
    again.add_argument("daemon", metavar="DAEMON")
    _json(again)
    beside = commands.add_parser(
        "exec", help="run another program in a running bottle", usage="bottle exec ID [OPTION...] -- PROGRAM [ARG...]"
    )
    beside.add_argument("identity", metavar="ID")
    _tty(beside)
    beside.add_argument("--json", action="store_true", help="print one JSON object, at the end")
    beside.set_defaults(arguments=[])
    trail = commands.add_parser("audit", help="verify a bottle's audit and show it; exits 1 when it isn't whole")
    trail.add_argument("identity", metavar="ID")
    trail.add_argument("--refused", action="store_true", help="what was denied alone")
    trail.add_argument("--last", type=_count, metavar="N", help="the last N alone")
    _json(trail)
    verify = commands.add_parser("verify", help="try in a running bottle what an agent would; exits 1 when one works")
    verify.add_argument("identity", metavar="ID")
    _json(verify)
    doctor = commands.add_parser("doctor", help="what this machine lacks for bottles; exits 1 when nothing can start")
    doctor.add_argument("--backend", choices=BACKENDS, default="bwrap", help="which one it is about (default: bwrap)")
    _json(doctor)
    diff = commands.add_parser("diff", help="show what an agent did to its copy of a directory, as a patch")
    _bringing_back(diff)
    pull = commands.add_parser("pull", help="bring that back: as a patch, or applied to the directory")
    _bringing_back(pull)
    how = pull.add_mutually_exclusive_group()
    how.add_argument("-o", "--output", metavar="FILE", help="the patch's file (default: ID.patch; - is stdout)")
    how.add_argument("--apply", action="store_true", help="change the directory that the copy was made from")
    pull.add_argument("-y", "--yes", action="store_true", help="don't ask")
    _supervising(commands)
    cleanup = commands.add_parser("cleanup", help="remove what bottles that never came up left behind")
    cleanup.add_argument("--all", action="store_true", help="and every stopped bottle: it can't be resumed then")
    cleanup.add_argument(
        "--host", metavar="URL", help="and what your bottles left on the container engine of this host"
    )
    _json(cleanup)
    commands.add_parser("demo", help="watch a scripted agent try to get out of a bottle; needs no network")
    add_completion(commands)
    return whole


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number")
    return int(text)


def _supervising(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add what a person does with agents' proposals; bottle/operator/commands.py carries it out."""
    listing = commands.add_parser("proposals", help="show what agents ask for and nobody has decided")
    _json(listing)
    yes = commands.add_parser("approve", help="carry out one proposal, as `bottle proposals` showed it")
    yes.add_argument("proposal", metavar="P", help="its name in `bottle proposals`: another once anything changes")
    yes.add_argument("--as", dest="edited", metavar="FILE", help="another change in its place, as JSON; - is stdin")
    yes.add_argument("--accept-risks", action="store_true", help="also where there are reasons to look twice")
    _json(yes)
    no = commands.add_parser("reject", help="reject one proposal; asked again, it stays rejected")
    no.add_argument("proposal", metavar="P")
    no.add_argument("--reason", default="", metavar="TEXT", help="the agent is told")
    _json(no)
    commands.add_parser("dashboard", help="watch bottles, proposals and refusals, and decide")


def _agent(command: argparse.ArgumentParser) -> None:
    command.add_argument("agent", metavar="AGENT")
    command.add_argument("--backend", choices=BACKENDS, default="bwrap", help="default: bwrap")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _tty(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--tty", action=argparse.BooleanOptionalAction, help="a terminal for it (default: when there is one here)"
    )


def _bringing_back(command: argparse.ArgumentParser) -> None:
    command.add_argument("identity", metavar="ID")
    command.add_argument(
        "--take", action="append", default=[], metavar="PATH", help="a path that is held back, or all below it"
    )
    _json(command)


def _host(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--host", metavar="URL", help="where it runs: ssh://, agent+unix://, agent+ssh://, tailnet:// (default: here)"
    )
    command.add_argument(
        "--host-dir", metavar="DIR", help="where that host keeps bottles (default: ~/.bot-bottle/hosted)"
    )
    command.add_argument("--host-env", metavar="DIR", help="the egress gate's environment on that host")
    command.add_argument("--ssh-config", metavar="FILE", help="in place of ~/.ssh/config, for --host")


def _launching(command: argparse.ArgumentParser) -> None:
    command.add_argument("-y", "--yes", action="store_true", help="don't ask")
    command.add_argument("--json", action="store_true", help="print one JSON object, at the end")
    _tty(command)
    command.add_argument("--record", metavar="FILE", help="record the agent's screen into a new file (asciicast v3)")
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="processes, memory, cpus, home, files: 4g, 512m, 1.5; 0 = none",
    )
    command.add_argument(
        "--resolve",
        action="append",
        default=[],
        metavar="HOST=ADDRESS:PORT",
        help="where egress finds a host, instead of DNS; the address must still be granted",
    )
    command.add_argument(
        "--upstream-ca", metavar="FILE", help="PEM of further authorities that egress trusts in upstreams"
    )
