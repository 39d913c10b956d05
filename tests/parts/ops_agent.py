"""A real ops-agent of the test's own: its config, its process, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opsexec.verbs import ANY_PATTERN, VERBS
from tests.parts.host_key import private_key
from tests.parts.netns import Namespaces
from tests.parts.tailscaled import Tailscaled
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually_now

TAILNET_PORT = 7227
DEATH_S = 60.0
"""Seconds one gets to serve, or to come to where it kills itself, on a machine that does much else."""
END_S = 20.0
"""Seconds an agent gets to end; its own bound for what runs is half of that."""
REPOSITORY = Path(__file__).parents[2]
EVERYTHING = [f"{name}:{ANY_PATTERN[verb.kind]}" for name, verb in VERBS.items()]


class OpsAgent:
    """One agent, `python -m agent`. `grants`: tables as the config has them; None = this user may do everything.

    `tailscaled`: a node that it listens on too, in whose namespace it runs; `tailscaled_socket`: what says who calls,
    where there is no such node; `tables`: TOML of further tables.
    `bottles`: names of bottles that have a socket of their own here.
    `program`: Python's own arguments, where it is not the agent as it stands.
    """

    def __init__(
        self,
        grants: Sequence[dict[str, Any]] | None = None,
        *,
        mode: str = "0600",
        environment: dict[str, str] | None = None,
        tailscaled: Tailscaled | None = None,
        tailnet_port: int = TAILNET_PORT,
        tailscaled_socket: Path | None = None,
        tables: str = "",
        program: Sequence[str] = ("-m", "agent"),
        bottles: Sequence[str] = (),
        nice: int = 0,
        **limits: float,
    ) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="ops-agent-")
        self.directory = Path(self._held.name)
        self.directory.chmod(0o711)
        self.socket = self.directory / "run" / "agent.sock"
        self.state = self.directory / "state"
        self.config = self.directory / "config.toml"
        self.log = self.directory / "stderr"
        self.mode = mode
        self.nice = nice
        self.bottles = {name: self.directory / "bottles" / name / "agent.sock" for name in bottles}
        self.tailscaled = tailscaled
        self.tailnet_port = tailnet_port
        self.tables = tables
        self.program = program
        self.tailscaled_socket = tailscaled_socket if tailscaled is None else tailscaled.socket
        self._key = None if "[audit]" in tables else private_key(self.directory / "host_key")
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        everything = [{"principal": f"unix:{current_user()}", "capabilities": EVERYTHING, "run_as": ["*"]}]
        self.write_config(everything if grants is None else grants, **limits)

    def write_config(self, grants: Sequence[dict[str, Any]], **limits: float) -> None:
        """Write the config file anew; SIGHUP has it read."""
        listen = [f"unix:{self.socket}", *([f"tailnet:{self.tailnet_port}"] if self.tailscaled_socket else [])]
        listen += [f"bottle:{name}:{path}" for name, path in self.bottles.items()]
        lines = ["[agent]", f"listen = {json.dumps(listen)}", f'state_dir = "{self.state}"']
        lines += [f'socket_mode = "{self.mode}"', 'name = "agent-under-test"', f"nice = {self.nice}"]
        if self.tailscaled_socket is not None:
            lines += ["[tailnet]", f'socket = "{self.tailscaled_socket}"']
        lines.append("[limits]")
        lines += [f"{name} = {value}" for name, value in limits.items()]
        if self._key is not None:
            lines += ["[audit]", f'host_key = "{self._key}"']  # never the key of the machine that the tests run on
        lines.append(self.tables)
        for grant in grants:
            # A JSON text or list of texts is a TOML one too.
            lines += ["[[grants]]", *(f"{name} = {json.dumps(value)}" for name, value in grant.items())]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """How an executor reaches it."""
        return f"agent+unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it serves; what it does after that, its end included, is its test's to look at."""
        before = self.said().count("serving")

        def served() -> bool:
            return self.said().count("serving") > before

        self.begin()
        eventually_now(
            lambda: served() or self._process is None or self._process.poll() is not None,
            within_s=DEATH_S,
            what="the agent serves",
        )
        if not served():
            raise AssertionError(f"the agent ended: {self.said()}")

    def begin(self) -> None:
        """Start it; one that is to die may do so before it serves."""
        argv = [sys.executable, "-W", "error", *self.program, "--config", str(self.config)]
        if self.tailscaled is not None:
            argv = Namespaces.inside(self.tailscaled.namespace, argv)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stderr=log, cwd=REPOSITORY, env=self._environment)

    def said(self) -> str:
        """What it has said on stderr."""
        return self.log.read_text() if self.log.exists() else ""

    def died(self) -> int:
        """Wait until it has ended of itself, and return its exit status."""
        assert self._process is not None
        return self._process.wait(DEATH_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # nothing of it may outlive its test, however the test fails
            self._process.wait(END_S)
            raise AssertionError(f"the agent did not end within {END_S:g} s: {self.said()[-2000:]}") from None

    def records(self) -> list[dict[str, Any]]:
        """What its audit holds."""
        text = (self.state / "audit.jsonl").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # one may be being written

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process is not None:
                self.end()
        finally:
            self._held.cleanup()
