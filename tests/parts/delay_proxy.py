"""A TCP proxy in a process of its own that makes loopback as slow as a distant host.

Every byte arrives half a round trip later, in order, at the bandwidth it was sent with. The three-way
handshake is not delayed (a connection costs one round trip less than a real one would).
The kernel here has no netem, and a proxy needs no root.

As a program: `python delay_proxy.py --target 127.0.0.2:2201 --rtt-ms 20` prints the port as one JSON
line, then obeys one word a line on stdin: cut, blackhole, resume, stop. It ends when stdin closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import selectors
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import IO

#: Bytes on their way in one direction above which the sender is held back (a long fat pipe's worth).
_IN_FLIGHT_LIMIT = 32 << 20
_RESET = struct.pack("ii", 1, 0)


class _Half(asyncio.Protocol):
    """One socket of a pair: what it receives is written to its peer, later."""

    def __init__(self, proxy: _Proxy, peer: _Half | None = None) -> None:
        self.proxy = proxy
        self.peer = peer
        self.transport: asyncio.Transport | None = None
        self._flying: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.proxy.halves.add(self)
        if self.peer is None:
            # Nobody to deliver to before the target has been reached. Python 3.11.2 takes no such word in here.
            self.proxy.loop.call_soon(transport.pause_reading)

    def data_received(self, data: bytes) -> None:
        self._fly(data)
        self._bytes += len(data)
        if self._bytes > _IN_FLIGHT_LIMIT and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._fly(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.halves.discard(self)
        if exc is not None and self.peer is not None:
            self.peer.reset()
        elif self._timer is None and not self._flying and self.peer is not None and self.peer.transport:
            self.peer.transport.close()

    def reset(self) -> None:
        """Close with RST, dropping what was on its way."""
        if self.transport is None or self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def deliver(self) -> None:
        """Hand everything that is due to the peer, and set the timer for the rest."""
        self._timer = None
        loop = self.proxy.loop
        while self._flying and not self.proxy.black:
            due, data = self._flying[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.deliver)
                return
            self._flying.popleft()
            self._bytes -= len(data)
            self._hand_over(data)
        if self._paused and self._bytes < _IN_FLIGHT_LIMIT // 2 and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    def _fly(self, data: bytes) -> None:
        loop = self.proxy.loop
        self._flying.append((loop.time() + self.proxy.one_way_s, data))
        if self._timer is None and not self.proxy.black:
            self._timer = loop.call_at(self._flying[0][0], self.deliver)

    def _hand_over(self, data: bytes) -> None:
        peer = self.peer.transport if self.peer is not None else None
        if peer is None or peer.is_closing():
            return
        if data:
            peer.write(data)
            return
        try:
            peer.write_eof()
        except OSError:  # the other end was reset in the meantime, so nobody is left to be told
            peer.abort()
            return
        if self.peer is not None and self.peer.peer_is_done():
            peer.close()

    def peer_is_done(self) -> bool:
        """Whether the socket behind this half's peer is closed already."""
        return self.peer is None or self.peer.transport is None or self.peer.transport.is_closing()


class _Proxy:
    def __init__(self, target: tuple[str, int], rtt_ms: float, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self.one_way_s = rtt_ms / 2000
        self.loop = loop
        self.halves: set[_Half] = set()
        self.black = False
        self._dialling: set[asyncio.Task[None]] = set()

    def accept(self) -> _Half:
        near = _Half(self)
        task = self.loop.create_task(self._dial(near))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)
        return near

    async def _dial(self, near: _Half) -> None:
        try:
            _, far = await self.loop.create_connection(lambda: _Half(self, near), *self.target)
        except OSError:
            near.reset()
            return
        near.peer = far
        if near.transport is None or near.transport.is_closing():
            far.reset()
        else:
            near.transport.resume_reading()

    def obey(self, word: str) -> None:
        """Carry out one command; raises ValueError for a word that is none."""
        if word == "cut":
            for half in list(self.halves):
                half.reset()
        elif word == "blackhole":
            self.black = True
        elif word == "resume":
            self.black = False
            for half in list(self.halves):
                half.deliver()
        else:
            raise ValueError(f"unknown command {word!r}")


class DelayProxy:
    """A running proxy; `port` on `address` leads to `target` with `rtt_ms` added to each round trip."""

    def __init__(self, target: tuple[str, int], *, rtt_ms: float = 0.0, address: str = "127.0.0.1") -> None:
        self.address = address
        goal = f"{target[0]}:{target[1]}"
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, __file__, "--rtt-ms", str(rtt_ms), "--listen", address, "--target", goal],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.port = int(json.loads(self._read_line())["port"])

    def cut(self) -> None:
        """Reset every connection; new ones are still accepted."""
        self._ask("cut")

    def blackhole(self) -> None:
        """Forward nothing any more and keep the sockets open, as a dead network path does."""
        self._ask("blackhole")

    def resume(self) -> None:
        """End a black hole; what was sent meanwhile arrives."""
        self._ask("resume")

    def stop(self) -> None:
        """End the proxy and with it every connection through it."""
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        _pipe(self._process.stdout).close()

    def __enter__(self) -> DelayProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _ask(self, word: str) -> None:
        stdin = _pipe(self._process.stdin)
        stdin.write(f"{word}\n")
        stdin.flush()
        self._read_line()

    def _read_line(self) -> str:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise ConnectionError("the delay proxy ended by itself; its stderr says why")
        return line


@contextlib.contextmanager
def delay_proxy(target: tuple[str, int], *, rtt_ms: float = 0.0) -> Iterator[DelayProxy]:
    """A proxy to `target` for the time of the block."""
    with DelayProxy(target, rtt_ms=rtt_ms) as proxy:
        yield proxy


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


async def _serve(target: tuple[str, int], listen: str, port: int, rtt_ms: float) -> None:
    loop = asyncio.get_running_loop()
    proxy = _Proxy(target, rtt_ms, loop)
    server = await loop.create_server(proxy.accept, listen, port, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        if line.strip() == b"stop":
            break
        proxy.obey(line.decode().strip())
        print("{}", flush=True)
    server.close()


def main() -> None:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(description="TCP proxy that adds a round-trip time")
    parser.add_argument("--target", required=True, help="address:port")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (0: a free one)")
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="added round-trip time in milliseconds")
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    # epoll's timeout has whole milliseconds and rounds up, which would add up to 10 % to 10 ms one way.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_serve((host, int(port)), options.listen, options.port, options.rtt_ms))


if __name__ == "__main__":
    main()
