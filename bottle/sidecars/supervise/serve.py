"""The supervise daemon. The first line of its stdin is its configuration, each further one news of the launcher's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from bottle.sidecars.supervise.config import SuperviseConfig, read_config
from bottle.sidecars.supervise.desk import Desk
from bottle.sidecars.supervise.door import BLOCK, Door
from bottle.sidecars.supervise.protocol import VERSIONS, Server
from bottle.sidecars.supervise.said import Refusals, say

MAX_LINE = 1 << 20


async def serve(config: SuperviseConfig, news: asyncio.StreamReader) -> None:
    """Serve until stdin ends, or SIGTERM."""
    over = asyncio.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the bundle's, when it ends
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    desk = Desk(config.wait_s, config.routes)
    door = Door(Server(desk, config.offered).answer, config.door, VERSIONS, Refusals())
    config.socket.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(door.accept, path=config.socket, limit=BLOCK)
    os.chmod(config.socket, 0o666)

    async def listen() -> None:
        while line := await news.readline():
            await desk.news(line)
        over.set()

    listening = asyncio.create_task(listen())
    say({"event": "ready", "daemon": "supervise", "tools": len(config.offered) + 2})
    try:
        await over.wait()
    finally:
        listening.cancel()
        server.close()
        await door.aclose()


async def main() -> None:
    """Read the configuration and serve."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await serve(read_config(await reader.readline()), reader)


if __name__ == "__main__":
    asyncio.run(main())
