"""Starts pipelock in the bundle: an authority of its own, a port of loopback, and a file that tells egress which.

Reads one JSON object on stdin: `{"program", "config", "trust", "work_dir"}`. While it isn't up there is no such file,
and egress, which looks there at each dial, refuses. Standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

READY_S = 20.0
STEP_S = 0.05
GRACE_S = 0.7
"""Less than the supervisor's own."""


class Failed(Exception):
    """It can't be started, and why."""


def say(event: dict[str, Any]) -> None:
    """Say one line."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def prepare(config: dict[str, Any], env: dict[str, str]) -> Path:
    """Make the place and, unless an earlier start did, the authority; returns the place.

    What egress trusts is written beside it: the world's authorities, and this one.
    """
    place = Path(config["work_dir"])
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (place / "ca-key.pem").exists():
        words = ["tls", "init", "--out", str(place), "--org", "bottle", "--validity", "720h"]
        null = asyncio.subprocess.DEVNULL
        made = await asyncio.create_subprocess_exec(config["program"], *words, env=env, stdin=null, stdout=null)
        if await made.wait() != 0:
            raise Failed("its authority can't be made")
    whole = Path(config["trust"]).read_text("ascii").rstrip("\n") + "\n" + (place / "ca.pem").read_text("ascii")
    _replace(place / "trust.pem", whole)
    return place


def free_port() -> int:
    """Return a port of loopback that nobody has now. Who takes it first has no key that egress trusts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _until_listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(READY_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(STEP_S)
            else:
                writer.close()
                return
    raise Failed(f"it ended with {process.returncode}")


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    beside.replace(path)


async def serve(config: dict[str, Any]) -> int:
    """Start it, tell where it is, and stay until it ends or SIGTERM comes; returns an exit status."""
    env = {"PATH": "/usr/bin:/bin", "HOME": config["work_dir"], "SSL_CERT_FILE": config["trust"], "LANG": "C.UTF-8"}
    env["BOTTLE_IDENTITY"] = os.environ.get("BOTTLE_IDENTITY", "")
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, over.set)
    address = Path(config["work_dir"]) / "address"
    address.unlink(missing_ok=True)
    place = await prepare(config, env)
    port = free_port()
    words = ["run", "--config", config["config"], "--listen", f"127.0.0.1:{port}", "--home", str(place)]
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(config["program"], *words, env=env, stdin=null, cwd=place)
    ended, told = asyncio.create_task(process.wait()), asyncio.create_task(over.wait())
    try:
        await _until_listening(process, port)
        _replace(address, f"127.0.0.1:{port}\n")
        say({"event": "ready", "daemon": "pipelock", "port": port})
        await asyncio.wait([ended, told], return_when=asyncio.FIRST_COMPLETED)
        return 0 if over.is_set() else process.returncode or 1  # it is not meant to end
    finally:
        address.unlink(missing_ok=True)
        told.cancel()
        if process.returncode is None:
            process.terminate()
            await asyncio.wait([ended], timeout=GRACE_S)
        if process.returncode is None:
            process.kill()
            await ended


def main() -> int:
    """Read the configuration and serve."""
    try:
        return asyncio.run(serve(json.loads(sys.stdin.buffer.read())))
    except (OSError, TimeoutError, Failed) as error:
        say({"event": "failed", "daemon": "pipelock", "reason": f"{type(error).__name__}: {error}"[:300]})
        return 1


if __name__ == "__main__":
    sys.exit(main())
