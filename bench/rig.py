"""What a row measures with: hosts of our own, scratch space, and how thorough the run is to be."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Entrant, Field, round_robin
from tests.parts.delay_proxy import DelayProxy
from tests.parts.ops_agent import OpsAgent
from tests.parts.sshd import Endpoint, Sshd, fleet

OURS = "opsexec"


def as_job(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as contestants get it."""
    return {
        "address": endpoint.address,
        "port": endpoint.port,
        "user": endpoint.user,
        "identity": str(endpoint.identity),
        "known_hosts": str(endpoint.known_hosts),
    }


@dataclass(frozen=True)
class Rig:
    """`quick`: one small round, to see that everything works. `rounds`: what the user asked for."""

    scratch: Path
    quick: bool = False
    rounds: int | None = None

    def size(self, full: int, quick: int) -> int:
        """A size that depends on how thorough the run is."""
        return quick if self.quick else full

    def race(self, entrants: Sequence[Entrant], *, rounds: int = 5) -> Field:
        """Let the entrants take turns, after one untimed turn of each quick one."""
        rounds = self.rounds or (1 if self.quick else rounds)
        present = [entrant for entrant in entrants if entrant.python == "peers" or opsexec_can_run()]
        if not self.quick:
            round_robin([entrant for entrant in present if not entrant.slow], 1, say=lambda _: None)
        return round_robin(present, rounds, say=self.say)

    def say(self, text: str) -> None:
        """Progress, on stderr."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def plain_home(self) -> list[str]:
        """sshd lines that give logins an empty home: this machine's shell profiles are not to be measured."""
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        return [f"SetEnv HOME={home}"]

    @contextlib.contextmanager
    def host(self, **options: Any) -> Iterator[Sshd]:
        """One host: an sshd with MaxSessions 10, as sshd comes."""
        with Sshd(extra=self.plain_home(), **options) as server:
            yield server

    @contextlib.contextmanager
    def hosts(self, count: int) -> Iterator[list[dict[str, Any]]]:
        """Many hosts, as contestants get them."""
        with fleet(count, extra=self.plain_home()) as many:
            yield [as_job(endpoint) for endpoint in many.endpoints]

    @contextlib.contextmanager
    def agents(self, count: int = 1) -> Iterator[list[OpsAgent]]:
        """Many ops-agents on unix sockets, each a process with an audit of its own, as on as many hosts."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(OpsAgent(max_runs_per_principal=256)) for _ in range(count)]

    @contextlib.contextmanager
    def distant_host(self, rtt_ms: float) -> Iterator[dict[str, Any]]:
        """One host behind a delay proxy."""
        with self.host() as server, DelayProxy((server.listen[0], server.port), rtt_ms=rtt_ms) as proxy:
            yield as_job(server.endpoint_behind(proxy.address, proxy.port))


def opsexec_can_run() -> bool:
    """Whether the executors are there to be measured."""
    return importlib.util.find_spec("opsexec.connect") is not None


@contextlib.contextmanager
def rig(*, quick: bool, rounds: int | None) -> Iterator[Rig]:
    """A rig with scratch space that goes with it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        Path(scratch).chmod(0o755)
        yield Rig(Path(scratch), quick=quick, rounds=rounds)
