"""`bottle`: start, look at, stop and resume agents in sealed bottles."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

STOP_S = 15.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from bottle.arguments import parser
    from opsexec.errors import OpsError

    whole = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = whole.parse_args(own)
    if rest and arguments.command not in ("start", "exec"):
        whole.error("words after -- are for `start` and `exec` only")
    if rest:
        arguments.arguments = rest
    if arguments.version:
        from opsexec import __version__

        print(f"bottle {__version__}")
        return 0
    if arguments.command is None:
        whole.print_usage(sys.stderr)
        print("bottle: a command is missing", file=sys.stderr)
        return 2
    try:
        return _COMMANDS[arguments.command](arguments)
    except OpsError as error:
        print(f"bottle: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _start(arguments: argparse.Namespace) -> int:
    from bottle.starting import start

    return start(arguments)


def _resume(arguments: argparse.Namespace) -> int:
    from bottle.starting import resume

    return resume(arguments)


def _info(arguments: argparse.Namespace) -> int:
    from bottle.preflight import preflight
    from bottle.starting import sample_plan

    plan, _ = sample_plan(arguments.agent, arguments.backend)
    if arguments.json:
        rows = [line.partition(" ") for line in preflight(plan)]
        _print_json({"agent": plan.agent, "digest": plan.digest, "routes": plan.egress.table(),
                     "lines": [[label, text.strip()] for label, _, text in rows]})  # fmt: skip
        return 0
    for line in preflight(plan):
        print(line)
    return 0


def _capabilities(arguments: argparse.Namespace) -> int:
    from bottle import credentials, launch
    from bottle.starting import NOBODY, sample_plan

    plan, place = sample_plan(arguments.agent, arguments.backend)
    found = launch.capabilities(plan, place, credentials.masked(plan), NOBODY)
    # A grant is for every bottle of the agent, not for one.
    found = sorted({each.replace(plan.identity, f"{plan.agent}-*") for each in found})
    if arguments.json:
        _print_json({"agent": plan.agent, "capabilities": found})
        return 0
    print("\n".join(found))
    return 0


def _policy(arguments: argparse.Namespace) -> int:
    from bottle.sidecars.egress.decide import Seen, decide_request
    from bottle.sidecars.egress.policy import read_table
    from bottle.starting import sample_plan
    from opsexec.errors import UsageError

    plan, _ = sample_plan(arguments.agent, arguments.backend)
    try:
        parts = urlsplit(arguments.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UsageError(f"{arguments.url!r} is not a URL ({error})") from error
    host = parts.netloc.rpartition(":")[0] if parts.netloc.endswith(f":{port}") else parts.netloc
    target = arguments.url.partition("://")[2].removeprefix(parts.netloc).partition("#")[0] or "/"
    verdict = decide_request(
        read_table(plan.egress.table()),
        Seen(
            tunnel=(host, port) if parts.scheme == "https" else None,
            tls=True,
            sni=host,
            scheme=parts.scheme,
            host=host,
            port=port,
            authority="",
            method=arguments.method,
            target=target,
            headers=((b"host", host.encode("utf-8", "replace")),),
        ),
    )
    injected = verdict.route.slot if verdict.route is not None else None
    if arguments.json:
        _print_json({"allow": verdict.allow, "reason": verdict.reason, "injects": injected})
    else:
        print(f"{'allowed' if verdict.allow else 'refused'}: {verdict.reason}")
    return 0 if verdict.allow else 1


def _list(arguments: argparse.Namespace) -> int:
    from bottle.errors import NoSuchBottle
    from bottle.manifest.store import home_root
    from bottle.state import State

    state = State(home_root().resolve())
    rows: list[dict[str, Any]] = []
    alive = {each.identity for each in state.running()}
    for identity in state.identities():
        if identity not in alive and not arguments.all:
            continue
        try:
            found = state.read(identity)
        except NoSuchBottle as error:
            rows.append(
                {"identity": identity, "state": "unreadable", "agent": "", "started_at": 0.0, "why": str(error)}
            )
            continue
        how = "running" if identity in alive else "left behind" if found.phase == "launching" else "stopped"
        rows.append({"identity": identity, "state": how, "agent": found.agent, "started_at": found.started_at})
    rows.sort(key=lambda row: (row["started_at"], row["identity"]))
    if arguments.json:
        _print_json({"bottles": rows})
        return 0
    for row in rows:
        print(f"{row['identity']:<40} {row['state']:<12} {row['agent']}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from bottle.manifest.store import home_root
    from bottle.state import State

    was_running = State(home_root().resolve()).stop(arguments.identity, STOP_S)
    print(f"{arguments.identity} {'stopped' if was_running else 'was not running'}")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from bottle.manifest.store import home_root
    from bottle.preflight import shown
    from bottle.state import State

    state = State(home_root().resolve())
    state.read(arguments.identity)
    path = state.directory(arguments.identity) / "bundle.log"
    if not path.exists():
        return 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if arguments.daemon is None or line.startswith(f"{arguments.daemon} | "):
                print(shown(line.rstrip("\n")))
    return 0


def _cleanup(arguments: argparse.Namespace) -> int:
    from bottle.errors import NoSuchBottle
    from bottle.leftovers import sweep
    from bottle.manifest.store import home_root
    from bottle.starting import remove, say
    from bottle.state import State

    state = State(home_root().resolve())
    for identity in asyncio.run(sweep(state, say)):
        print(f"removed the containers and networks of {identity}")
    for identity in state.identities():
        if state.alive(identity):
            continue
        try:
            phase = state.read(identity).phase
        except NoSuchBottle:
            phase = "launching"
        if phase == "launching" or arguments.all:
            with state.held(identity):
                asyncio.run(remove(state, identity))
            print(f"removed {identity}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from bottle.demo.run import run

    return run()


def _diff(arguments: argparse.Namespace) -> int:
    from bottle.commands.workspace import diff

    return diff(arguments)


def _pull(arguments: argparse.Namespace) -> int:
    from bottle.commands.workspace import pull

    return pull(arguments)


def _exec(arguments: argparse.Namespace) -> int:
    from bottle.commands.exec import execute

    return execute(arguments)


def _restart(arguments: argparse.Namespace) -> int:
    from bottle.restarting import restart

    return restart(arguments)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=True))


def _operating(arguments: argparse.Namespace) -> int:
    from bottle.operator.commands import COMMANDS

    return COMMANDS[arguments.command](arguments)


_COMMANDS = {
    "start": _start,
    "resume": _resume,
    "info": _info,
    "capabilities": _capabilities,
    "policy": _policy,
    "list": _list,
    "stop": _stop,
    "logs": _logs,
    "cleanup": _cleanup,
    **dict.fromkeys(("proposals", "approve", "reject", "dashboard"), _operating),
    "demo": _demo,
    "diff": _diff,
    "pull": _pull,
    "exec": _exec,
    "restart": _restart,
}
