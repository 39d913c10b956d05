"""One of the demo's hosts: its sshd, its tree of files, the service on it, and what can be observed of each."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shlex
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.parts.sshd import Sshd


@dataclass(frozen=True)
class DemoHost:
    """A host that is an sshd on a loopback address and a directory, `root`, that stands for its disk."""

    name: str
    tier: str
    address: str
    root: Path
    sshd: Sshd

    def inventory(self, user: str) -> str:
        """Return its table of the inventory; it grants what the runbook needs under `root`, and nothing else."""
        endpoint = self.sshd.endpoint(user=user)
        root = str(self.root)
        check = shlex.join(["-B", f"{root}/app/webd.py", "--check", root])
        capabilities = [
            *(f"{verb}:{root}/**" for verb in ("fs.read", "fs.write", "sync.push")),
            "shell:app.*",
            f"exec:/usr/**/python3 {check}",
            "exec:/usr/bin/uptime",
        ]
        values = {
            "url": endpoint.url,
            "groups": ["web"],
            "capabilities": capabilities,
            "identity_files": [str(endpoint.identity)],
            "known_hosts": str(endpoint.known_hosts),
            "config_files": [os.devnull],
        }
        # A TOML basic string, or a list of them, is written as in JSON.
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        variables = {"tier": self.tier, "root": root, "address": self.address}
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in variables.items())
        return "\n".join([f"[hosts.{self.name}]", *lines, f"vars = {{ {pairs} }}", ""])

    def digest(self) -> str:
        """Return a digest of the whole tree: names, kinds, modes, owners, sizes, times of change, contents."""
        digest = hashlib.sha256()
        for path in sorted([self.root, *self.root.rglob("*")]):
            info = path.lstat()
            facts = [str(path), info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns]
            if stat.S_ISREG(info.st_mode):
                facts.append(hashlib.sha256(path.read_bytes()).hexdigest())
            elif stat.S_ISLNK(info.st_mode):
                facts.append(os.readlink(path))
            digest.update(repr(facts).encode())
        return digest.hexdigest()

    def read(self, name: str) -> str | None:
        """Return a file's text, None when there is none."""
        try:
            return (self.root / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def mode(self, name: str) -> str:
        """Return a file's permission bits, like "0600"."""
        return f"{stat.S_IMODE((self.root / name).stat().st_mode):04o}"

    def page(self) -> str | None:
        """Ask the service for its page over the network; None when it doesn't answer."""
        url = self.read("run/webd.url")
        if url is None:
            return None
        address, _, port = url.strip().partition(":")
        connection = http.client.HTTPConnection(address, int(port), timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return None
        finally:
            connection.close()

    def daemon(self) -> int | None:
        """Return the pid of its service, None when it isn't running."""
        pid = (self.read("run/webd.pid") or "").strip()
        if not pid.isdigit():
            return None
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return None
        return int(pid) if os.fsencode(self.root) in words else None

    def stop_daemon(self) -> None:
        """End the service, if it runs."""
        pid = self.daemon()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGTERM)
