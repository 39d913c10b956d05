"""What tailscaled says: through its LocalAPI, or through the tailscale program where that isn't there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from datetime import UTC, datetime

import anyio

from opsexec.hosts.local_api import LocalApi, TailnetUnavailable
from opsexec.hosts.tailnet_node import Address, Nobody, Node, endpoint, read_whois, whois
from opsexec.hosts.tailnet_status import Status, read_status, status


class Tailscaled:
    """`program`: the fallback, for machines without a LocalAPI socket; None = there is none."""

    def __init__(self, path: str, program: str | None) -> None:
        self._api = LocalApi(path)
        self._program = program

    @property
    def uid(self) -> int | None:
        """The user it runs as; None when its socket didn't tell."""
        return self._api.uid

    async def status(self, within_s: float) -> Status:
        """Return this node, without its peers; raises TailnetUnavailable."""
        try:
            return await status(self._api, peers=False, within_s=within_s)
        except TailnetUnavailable:
            if not self._falls_back():
                raise
        code, said = await self._run(["status", "--json", "--peers=false"], within_s)
        if code != 0:
            raise TailnetUnavailable(f"{self._program} status failed", hint="run `tailscale up`")
        try:
            return read_status(json.loads(said))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise TailnetUnavailable(f"{self._program} gave a status that can't be read") from error

    async def whois(self, address: Address, port: int, within_s: float) -> Node:
        """Return the node behind one end of a TCP connection; raises Nobody and TailnetUnavailable.

        The program says 1 for every failure, so whatever isn't an answer of its is nobody.
        """
        try:
            return await whois(self._api, address, port, within_s=within_s)
        except TailnetUnavailable:
            if not self._falls_back():
                raise
        code, said = await self._run(["whois", "--json", "--proto=tcp", endpoint(address, port)], within_s)
        if code != 0:
            raise Nobody(f"{self._program} whois knows nobody at {endpoint(address, port)}")
        return read_whois(said, datetime.now(UTC))

    def _falls_back(self) -> bool:
        """Whether the program is to be asked: never while there is a socket, however it fails."""
        return self._program is not None and not os.path.lexists(self._api.path)

    async def _run(self, arguments: list[str], within_s: float) -> tuple[int, bytes]:
        assert self._program is not None
        _require_trusted(self._program)
        argv = [self._program, *arguments]
        try:
            with anyio.fail_after(within_s):
                done = await anyio.run_process(
                    argv, check=False, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}
                )
        except (TimeoutError, OSError) as error:
            raise TailnetUnavailable(f"{self._program} gave no answer ({type(error).__name__})") from error
        return done.returncode, done.stdout


def _require_trusted(program: str) -> None:
    """Raise unless the program can be changed by root or this user alone: it says who everybody is."""
    try:
        found = os.stat(program)
    except OSError as error:
        text = f"tailscaled's socket is not there, and neither is {program}"
        raise TailnetUnavailable(text, hint="is tailscaled running?") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise TailnetUnavailable(f"{program} is not root's own", hint="chown it to root, and chmod go-w")
