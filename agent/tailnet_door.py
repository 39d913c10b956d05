"""`TailnetDoor`: one port of this node on the tailnet, opened again when tailscaled makes its interface anew."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from agent.errors import AgentUnable
from agent.tailnet import Tailnet

LOOK_S = 2.0
"""Seconds between looks at whether the interface is still the one that is listened on."""


class TailnetDoor:
    """`listen` serves one socket; `say` tells the operator."""

    def __init__(
        self, tailnet: Tailnet, listen: Callable[[socket.socket], Awaitable[asyncio.Server]], say: Callable[[str], None]
    ) -> None:
        self._tailnet = tailnet
        self._listen = listen
        self._say = say
        self._servers: list[asyncio.Server] = []
        self._closed = False

    async def open(self) -> None:
        """Listen on the node's addresses; raises AgentUnable."""
        for bound in await self._tailnet.bind():
            if self._closed:
                bound.close()
            else:
                self._servers.append(await self._listen(bound))

    async def attend(self) -> None:
        """Listen again whenever the node's interface or addresses are others, for as long as it takes, until closed."""
        while not self._closed:
            await asyncio.sleep(LOOK_S)
            if self._tailnet.stands() or self._closed:
                continue
            self._close_all()
            self._say("the tailnet's interface has gone, and with it the listener there; waiting for it")
            await self._again()

    async def _again(self) -> None:
        while not self._closed:
            try:
                await self.open()
            except AgentUnable:  # tailscaled isn't connected yet, or its addresses aren't there
                self._close_all()
                await asyncio.sleep(LOOK_S)
            else:
                self._say("listening on the tailnet again")
                return

    def _close_all(self) -> None:
        while self._servers:
            self._servers.pop().close()

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._close_all()
