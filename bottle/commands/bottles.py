"""`bottle list`, `stop`, `logs` and `cleanup`: the bottles there are."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from typing import Any

from bottle.commands.row import row
from bottle.commands.told import print_json

STOP_S = 15.0


def list_bottles(arguments: argparse.Namespace) -> int:
    """Show the bottles that run, or with --all every one of which there is a trace."""
    from bottle.manifest.store import home_root
    from bottle.preflight import shown
    from bottle.state import State

    state = State(home_root().resolve())
    rows: list[dict[str, Any]] = []
    alive = {each.identity for each in state.running()}
    rows += [row(state, each, each in alive) for each in state.identities() if each in alive or arguments.all]
    rows.sort(key=lambda each: (each["started_at"], each["identity"]))
    if arguments.json:
        print_json({"bottles": rows})
        return 0
    if not rows:
        none = "there is no bottle" if arguments.all else "no bottle runs; --all shows stopped ones"
        print(f"bottle: {none}", file=sys.stderr)
    for each in rows:
        where = f"  on {shown(each['host'])}" if each.get("host") else ""
        print(f"{each['identity']:<40} {each['state']:<12} {each['agent']}{where}")
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """End a bottle by asking its launcher to."""
    from bottle.manifest.store import home_root
    from bottle.state import State

    was_running = State(home_root().resolve()).stop(arguments.identity, STOP_S)
    if arguments.json:
        print_json({"identity": arguments.identity, "was_running": was_running})
        return 0
    print(f"{arguments.identity} {'stopped' if was_running else 'was not running'}")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Show what a bottle's daemons said; raises UsageError for a daemon that said nothing."""
    from bottle.manifest.store import home_root
    from bottle.preflight import shown
    from bottle.state import State
    from opsexec.errors import UsageError

    state = State(home_root().resolve())
    state.read(arguments.identity)
    path = state.directory(arguments.identity) / "bundle.log"
    if not path.exists():
        return 0
    said: set[str] = set()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            daemon, bar, text = line.rstrip("\n").partition(" | ")
            said |= {daemon} if bar else set()
            if arguments.daemon not in (None, daemon):
                continue
            if arguments.json:
                print_json({"source": daemon, "text": text} if bar else {"source": None, "text": daemon})
            else:
                print(shown(line.rstrip("\n")))
    if arguments.daemon is not None and arguments.daemon not in said:
        raise UsageError(f"no daemon {arguments.daemon[:60]!r} said a word", hint="said: " + ", ".join(sorted(said)))
    return 0


def cleanup(arguments: argparse.Namespace) -> int:
    """Remove what launches that never came up, or with --all every stopped bottle, left behind."""
    from bottle.errors import BottleRunning, BottleUnreadable, NoSuchBottle
    from bottle.hosting import removed_there
    from bottle.leftovers import sweep, sweep_there, taken_there
    from bottle.manifest.store import home_root
    from bottle.preflight import shown
    from bottle.starting import remove, say
    from bottle.state import State
    from opsexec.errors import OpsError

    state = State(home_root().resolve())
    tell = (lambda _: None) if arguments.json else print
    swept = asyncio.run(sweep(state, say))
    for identity in swept:
        tell(f"removed the containers and networks of {identity}")
    if arguments.host is not None:
        there = asyncio.run(sweep_there(state, arguments.host))
        for identity in there:
            tell(f"removed the containers and networks of {identity} on {shown(arguments.host)}")
        swept += there
    removed, kept = [], []
    for identity in state.identities():
        if state.alive(identity):
            continue
        try:
            with state.held(identity):  # from here on nobody starts it
                try:
                    found = state.read(identity)
                    if found.phase != "launching" and not arguments.all:
                        continue
                    asyncio.run(taken_there(found))
                    asyncio.run(removed_there(found))
                except BottleUnreadable as error:
                    if not arguments.all:  # it may have run: its home may hold an agent's work
                        say(f"{identity} stays: {error}; --all removes it")
                        kept.append(identity)
                        continue
                except NoSuchBottle:
                    pass  # killed before it was written down
                except OpsError as error:
                    # Its record stays: it is all that tells where the rest of it is.
                    say(f"{identity} stays: its host can't be cleaned: {error}")
                    forget = f"rm -r {shlex.quote(str(state.directory(identity)))}"
                    say(f"where that host, or its engine, is gone for good: {shown(forget)}")
                    kept.append(identity)
                    continue
                asyncio.run(remove(state, identity))
        except (BottleRunning, NoSuchBottle):
            continue
        removed.append(identity)
        tell(f"removed {identity}")
    if arguments.json:
        print_json({"removed": removed, "of_the_engine": swept, "kept": kept})
    elif not removed and not swept and not kept:
        say("nothing to remove" + ("" if arguments.all else "; --all also takes stopped bottles"))
    return 1 if kept else 0
