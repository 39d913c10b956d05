"""The egress daemon: mitmproxy behind one unix socket, with a resolver that asks for granted names only.

Reads one JSON object on stdin (identity, CA, routes, tokens), so that no secret stands in an argv, an environment or a
file. SIGHUP reads the route table again and closes every connection that the old one let in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import bottle.sidecars.egress.lean  # isort: skip # noqa: F401 -- what it does comes before mitmproxy
from mitmproxy import master, options
from mitmproxy.addons import core, disable_h2c, next_layer, proxyserver, tlsconfig

from bottle.sidecars.egress import bounds
from bottle.sidecars.egress.addon import Gate, say
from bottle.sidecars.egress.addresses import refusal
from bottle.sidecars.egress.door import MAX_CLIENTS, PEER, Door
from bottle.sidecars.egress.hop import Hop, NoWay
from bottle.sidecars.egress.policy import PORT, Policy, read_table

MAX_MEMORY = 2 << 30
"""Of address space, in bytes: a bomb ends this daemon, and with it the only way out."""

LOOKUP_S = 10.0


class CheckedLoop(asyncio.SelectorEventLoop):
    """An event loop that looks up granted names only, once for each dial, and dials what it checked.

    `fixed`: host -> (address, port) of the operator's own; it is held to the same ranges.
    """

    policy: Policy = Policy({})
    fixed: dict[str, tuple[str, int]] = {}  # noqa: RUF012 -- set once, before the loop runs
    hop: Hop | None = None

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        """Dial; through the hop, where there is one, once the name's addresses are found to be this route's."""
        if self.hop is None or host is None:
            return await super().create_connection(protocol_factory, host, port, **more)
        await self.getaddrinfo(host, port)
        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        _, number = self.fixed.get(name, (name, PORT))
        try:
            line = await self.hop.tunnel(self, name, number)
        except NoWay as error:
            say({"event": "egress", "decision": "deny", "reason": str(error), "host": name, "port": PORT})
            raise
        return await super().create_connection(protocol_factory, sock=line)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        route = self.policy.route(name)
        if route is None or int(port) != PORT:
            raise OSError(f"no route for {name[:200]!r}")
        target, number = self.fixed.get(name, (name, PORT))
        async with asyncio.timeout(LOOKUP_S):
            found = await super().getaddrinfo(
                target, number, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags
            )
        reason = refusal([str(each[4][0]) for each in found], route)
        if reason is not None:
            say({"event": "egress", "decision": "deny", "reason": reason, "host": name, "port": PORT})
            raise OSError(reason)
        return list(found)


class Unreadable(logging.Handler):
    """Writes the audit line of a request that mitmproxy itself refused, before any hook could see it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take one log record; what the client sent stays out of the line."""
        if record.getMessage().startswith(f"{PEER}: "):
            say({"event": "egress", "decision": "deny", "reason": "no readable HTTP request"})


async def serve(config: dict[str, Any], loop: CheckedLoop) -> None:
    """Serve until SIGTERM."""
    # The table in its file is the one of now, also when this daemon is started again.
    policy = loop.policy = read_table(json.loads(Path(config["table"]).read_text("utf-8")))
    loop.fixed = {host: (address, port) for host, (address, port) in config.get("resolve", {}).items()}
    loop.hop = Hop(Path(config["hop"])) if config.get("hop") else None
    confdir = Path(config["work_dir"])
    confdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = confdir / "mitmproxy-ca.pem"
    authority.touch(mode=0o600)
    authority.write_text(config["ca"])
    chosen = options.Options(confdir=str(confdir))
    proxy = master.Master(chosen, event_loop=loop)
    gate = Gate(config["bottle"], config["tokens"], [(name, value) for name, value in config["known"]], policy)
    proxy.addons.add(
        core.Core(),
        disable_h2c.DisableH2C(),
        proxyserver.Proxyserver(),
        next_layer.NextLayer(),
        tlsconfig.TlsConfig(),
        gate,
    )
    chosen.update(
        server=False,
        connection_strategy="lazy",
        rawtcp=False,
        http3=False,
        ssl_verify_upstream_trusted_ca=config["trust"],
        tls_version_server_min="TLS1_2",
        tls_version_client_min="TLS1_2",
        validate_inbound_headers=True,
    )
    bounds.install(gate.beside)
    door = Door(proxy, gate)
    socket_path = Path(config["socket"])
    socket_path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(door.accept, path=socket_path, limit=1 << 16, backlog=MAX_CLIENTS)
    os.chmod(socket_path, 0o666)

    def reload() -> None:
        try:
            table = json.loads(Path(config["table"]).read_text("utf-8"))
            policy = read_table(table)
        except (OSError, ValueError) as error:
            policy = Policy({})  # nothing leaves under a policy that can't be read
            say({"event": "reload", "ok": False, "reason": type(error).__name__})
        else:
            say({"event": "reload", "ok": True, "routes": len(policy.routes)})
        loop.policy = policy
        gate.adopt(policy)

    logging.getLogger("mitmproxy.proxy.server").addHandler(Unreadable())
    logging.getLogger("mitmproxy.proxy.server").setLevel(logging.INFO)
    loop.add_signal_handler(signal.SIGHUP, reload)
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, proxy.shutdown)
    say({"event": "ready", "daemon": "egress", "routes": len(policy.routes)})
    try:
        await proxy.run()
    finally:
        server.close()
        door.close_all()


def main() -> None:
    """Read the configuration and serve."""
    config = json.loads(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    loop = CheckedLoop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(config, loop))


if __name__ == "__main__":
    main()
