"""`bottle proposals`, `bottle approve`, `bottle reject`, `bottle dashboard`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from bottle.manifest.store import home_root
from bottle.operator.deciding import approve, edited, reject
from bottle.operator.listing import WIDTH, lines
from bottle.operator.shown import Shown, find, waiting
from bottle.preflight import shown as plain
from bottle.state import State
from opsexec.errors import UsageError

MAX_EDIT = 64 << 10


def _state() -> State:
    return State(home_root().resolve())


def proposals(arguments: argparse.Namespace) -> int:
    """Show what waits for a decision; exits 1 when a queue can't be read."""
    seen = waiting(_state())
    if arguments.json:
        data = {"proposals": [each.rendered() for each in seen.waiting], "unreadable": seen.unreadable}
        print(json.dumps(data, ensure_ascii=True))
        return 1 if seen.unreadable else 0
    for each in seen.waiting:
        print("\n".join(lines(each, time.time(), _width())))
    for text in seen.unreadable:
        print(f"bottle: {plain(text)}", file=sys.stderr)
    if not seen.waiting and not seen.unreadable:
        print("nothing waits")
    return 1 if seen.unreadable else 0


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


def approve_one(arguments: argparse.Namespace) -> int:
    """Approve the one proposal that this name stands for, as it was shown, or as edited."""
    state = _state()
    shown = find(state, arguments.proposal)
    if arguments.edited is not None:
        shown = edited(shown, _body(arguments.edited))
    if not arguments.json:
        print("\n".join(lines(shown, time.time(), _width())))
    _leave_on_signals()
    _say(arguments, shown, approve(state, shown, accept_risks=arguments.accept_risks))
    if not arguments.json:
        print("it lasts until the bottle ends; what is to stay belongs in the bottle's manifest")
    return 0


def _say(arguments: argparse.Namespace, shown: Shown, said: str) -> None:
    told = {"proposal": shown.token, "bottle": shown.bottle, "said": said}
    print(json.dumps(told) if arguments.json else plain(said))


def _leave_on_signals() -> None:
    """Whoever is asked to end, or loses the terminal, takes back what isn't decided yet, as with Ctrl-C."""

    ends = (signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, _: object) -> NoReturn:
        for each in ends:
            signal.signal(each, signal.SIG_IGN)  # a second one would break the taking back off
        sys.exit(128 + number)

    for each in ends:
        signal.signal(each, leave)


def _body(name: str) -> dict[str, Any]:
    hint = "`bottle proposals --json` shows how a change is written"
    try:
        text = sys.stdin.read(MAX_EDIT) if name == "-" else Path(name).read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"--as {name}: can't be read as JSON", hint=hint) from error
    if not isinstance(found, dict):
        raise UsageError(f"--as {name}: not one JSON object", hint=hint)
    return found


def reject_one(arguments: argparse.Namespace) -> int:
    """Reject a proposal."""
    state = _state()
    _leave_on_signals()
    shown = find(state, arguments.proposal)
    _say(arguments, shown, reject(state, shown, arguments.reason))
    return 0


def dashboard(arguments: argparse.Namespace) -> int:
    """Show bottles, proposals and refusals until the person leaves."""
    from bottle.operator.dashboard import run

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", hint="`bottle proposals --json` says the same to a program")
    return run(_state(), home_root())
