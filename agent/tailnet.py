"""The tailnet's listeners: the node's own addresses and nothing else, and who tailscaled says is at the other end."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentUnable
from agent.identity import NOBODY, Identity
from agent.tailscaled import Tailscaled
from opsexec.errors import OpsError
from opsexec.hosts.local_api import TailnetUnavailable
from opsexec.hosts.tailnet_node import RANGES, Address, Nobody, Node, endpoint
from opsexec.hosts.tailnet_status import Status

if TYPE_CHECKING:
    from agent.config import TailnetTable

BACKLOG = 256
START_S = 20.0
"""Seconds that tailscaled gets to be connected when the agent starts: both may be starting with the machine."""

AGAIN_S = 0.5
ASK_S = 3.0
"""Seconds for each question about who connected: two of them fit between a loss of rights and 15 s after it."""

_LOOPBACK = ipaddress.ip_address("127.0.0.1")
_IFREQ = struct.Struct("16sH2s4s8s")
_SIOCGIFADDR = 0x8915


class Tailnet:
    """One tailscaled, as what proves who connects to a port of this node."""

    def __init__(self, table: TailnetTable, port: int) -> None:
        self._tailscaled = Tailscaled(table.socket, table.program)
        self._port = port
        self._kernel = True
        self._bound: list[tuple[Address, str, int]] = []

    async def bind(self) -> list[socket.socket]:
        """Return listening sockets on the node's own addresses; raises AgentUnable.

        With a TUN device these are tailnet addresses of this machine, and the sockets take nothing that came in by
        another interface, so that no neighbour and no local program can claim a tailnet address. Without one
        (userspace networking) tailscaled passes connections on to 127.0.0.1, and is who is asked about each.
        """
        found = await self._connected()
        self._kernel = found.kernel
        addresses = found.self.addresses if found.kernel else (_LOOPBACK,)
        sockets: list[socket.socket] = []
        self._bound = []
        try:
            for address in addresses:
                sockets.append(self._listen(address))
        except (OSError, AgentUnable) as error:
            for each in sockets:
                each.close()
            if isinstance(error, AgentUnable):
                raise
            text = f"can't listen on {endpoint(address, self._port)}: {os.strerror(error.errno or 0)}"
            raise AgentUnable(text, hint="is another agent running, and may this user bind to an interface?") from error
        if not sockets:
            raise AgentUnable("this node has no tailnet address", hint="run `tailscale up`")
        return sockets

    def stands(self) -> bool:
        """Whether what was bound is still this node's: a tailscaled that starts again makes its interface anew.

        A socket is bound to an interface by its number, and hears nothing more once that has gone.
        """
        try:
            return all(
                socket.if_nametoindex(device) == number and _interface_of(address) == device
                for address, device, number in self._bound
            )
        except (OSError, AgentUnable):
            return False

    async def _connected(self) -> Status:
        end = asyncio.get_running_loop().time() + START_S
        while True:
            try:
                return await self._tailscaled.status(START_S)
            except TailnetUnavailable as error:
                if asyncio.get_running_loop().time() > end:
                    raise AgentUnable(f"no tailnet to listen on: {error.message}", hint=error.hint) from error
            await asyncio.sleep(AGAIN_S)

    def _listen(self, address: Address) -> socket.socket:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self._kernel:
                device = _interface_of(address)
                self._bound.append((address, device, socket.if_nametoindex(device)))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
            listener.bind((str(address), self._port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:  # whatever it was: nobody else closes the socket
            listener.close()
            raise
        return listener

    async def prove(self, connection: Any) -> Identity:
        """Return who is at the other end of an accepted connection; whatever stands in the way makes it nobody."""
        try:
            async with asyncio.timeout(ASK_S):
                node = await self._ask(connection)
        except Nobody as nobody:
            return Identity(None, str(nobody))
        except TimeoutError:
            return Identity(None, f"tailscaled did not say who this is within {ASK_S:g} s", passing=True)
        except OSError:
            return NOBODY  # it went away again
        except OpsError as error:
            return Identity(None, f"nobody says who this is: {error.message}", passing=True)
        return Identity(node.principal, None, node.id)

    async def _ask(self, connection: Any) -> Node:
        peer, port = _end(connection.getpeername())
        here = _end(connection.getsockname())
        if self._kernel and not any(peer in each for each in RANGES):
            raise Nobody(f"{endpoint(peer, port)} is not a tailnet address")
        if not self._kernel and peer != _LOOPBACK:
            raise Nobody(f"{endpoint(peer, port)} did not come through tailscaled")
        me = (await self._tailscaled.status(ASK_S)).self
        owner = None if self._kernel else _owner_of((peer, port), here)
        if not self._kernel and (owner is None or owner != self._tailscaled.uid):
            raise Nobody(f"{endpoint(peer, port)} is not tailscaled's connection")
        node = await self._tailscaled.whois(peer, port, ASK_S)
        if node.id == me.id or set(node.addresses) & {*me.addresses, here[0]}:
            # Every local program can connect from this machine's own address.
            raise Nobody("this machine itself, which says nothing about who on it")
        if self._kernel and peer not in node.addresses:
            raise Nobody(f"{peer} is not an address of {node.name}")
        return node


def _end(name: Any) -> tuple[Address, int]:
    return ipaddress.ip_address(str(name[0]).partition("%")[0]), int(name[1])


def _interface_of(address: Address) -> str:
    """Return the interface that has an address; raises AgentUnable when none has."""
    names = [name for _, name in socket.if_nameindex()]
    if address.version == 6:
        wanted = address.packed.hex()
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            fields = line.split()
            if fields[0] == wanted:
                return fields[5]
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            for name in names:
                request = _IFREQ.pack(name.encode()[:15], socket.AF_INET, b"", b"", b"")
                try:
                    answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
                except OSError:
                    continue  # it has no IPv4 address
                if _IFREQ.unpack(answer)[3] == address.packed:
                    return name
    text = f"no interface has the tailnet address {address}"
    raise AgentUnable(text, hint="is tailscaled in the same network namespace as the agent?")


def _owner_of(peer: tuple[Address, int], here: tuple[Address, int]) -> int | None:
    """Return the uid of the local socket that is a loopback connection's other end (proc(5), /proc/net/tcp)."""
    wanted = [_proc_end(*peer), _proc_end(*here)]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def _proc_end(address: Address, port: int) -> str:
    """Return an IPv4 end as /proc/net/tcp has it: the address as a number of this machine's byte order."""
    (number,) = struct.unpack("=I", address.packed)
    return f"{number:08X}:{port:04X}"
