"""`bottle restart`: one daemon of a running bundle, by asking the bottle's launcher."""

from __future__ import annotations

import argparse
import asyncio
import json

from bottle.commands.told import print_json
from bottle.control_wire import connect_to, failure, frame, read_frame
from bottle.errors import LaunchFailed
from bottle.manifest.store import home_root
from bottle.state import State


def restart(arguments: argparse.Namespace) -> int:
    """Ask a bottle's launcher to restart a daemon; returns 0 when it is ready."""
    asyncio.run(_ask(arguments.identity, arguments.daemon))
    if arguments.json:
        print_json({"identity": arguments.identity, "daemon": arguments.daemon, "ready": True})
    else:
        print(f"{arguments.daemon} of {arguments.identity} is ready")
    return 0


async def _ask(identity: str, name: str) -> None:
    reader, writer = await connect_to(State(home_root().resolve()), identity)
    try:
        writer.write(frame(b"?", json.dumps({"restart": name}).encode()))
        found = await read_frame(reader)
    finally:
        writer.close()
    if found is None:
        raise LaunchFailed(f"{identity} ended", hint="`bottle list --all` shows what became of it")
    if found[0] == b"f":
        raise failure(json.loads(found[1]))
