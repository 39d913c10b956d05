"""The git gate's daemon: reads one JSON object on stdin, serves until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from bottle.sidecars.git_gate.ahead import Ahead
from bottle.sidecars.git_gate.bounds import Bounds
from bottle.sidecars.git_gate.config import GateConfig, declare, read_config
from bottle.sidecars.git_gate.door import Door
from bottle.sidecars.git_gate.gate import Gate
from bottle.sidecars.git_gate.hook import Hooks
from bottle.sidecars.git_gate.litter import remove_incoming
from bottle.sidecars.git_gate.native import NativeDoor
from bottle.sidecars.git_gate.repository import Repository, ceiling
from bottle.sidecars.git_gate.said import SaidAudit, say
from opsexec.errors import OpsError
from opsexec.local import LocalExec
from opsexec.steps.git import MIRROR


async def serve(config: GateConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    work = config.work_dir.resolve()
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = {name: declare(config, name).resolve() for name in config.repositories}
    for place in places.values():
        remove_incoming(place / MIRROR)  # no push of an earlier gate goes on: its hook has nobody to ask
    ex = LocalExec(
        capabilities=ceiling(places, config.gitleaks), audit=SaidAudit(), name="git-gate", listener="git-gate"
    )
    async with ex:
        waiting: set[Ahead] = set()
        repositories = {name: Repository(name, place, ex, config, waiting) for name, place in places.items()}
        hooks = Hooks(config.bottle, work)
        await hooks.start()
        bounds = Bounds(config.limits)
        gate = Gate(config.bottle, repositories, hooks, config.limits, bounds)
        door, native = Door(gate), NativeDoor(gate)
        config.socket.unlink(missing_ok=True)
        servers = [await loop.create_unix_server(door.protocol, path=config.socket)]
        if config.native is not None:
            config.native.unlink(missing_ok=True)
            servers.append(await native.start(config.native))
        for path in filter(None, (config.socket, config.native)):
            os.chmod(path, 0o666)
        say({"event": "ready", "daemon": "git-gate", "repositories": len(repositories)})
        try:
            await over.wait()
        finally:
            for server in servers:
                server.close()
            await native.aclose()
            await hooks.aclose()
            await door.server.shutdown(2.0)
            for repository in repositories.values():
                await repository.aclose()


def main() -> int:
    """Read the configuration and serve."""
    try:
        asyncio.run(serve(read_config(sys.stdin.buffer.read())))
    except OpsError as error:
        say({"event": "failed", "daemon": "git-gate", "reason": error.message})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
