"""Ways to one container engine: this machine's own socket, behind sshd, through an agent; with a small image in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from opsexec import CapabilitySet, LocalExec
from opsexec.host_executor import HostExecutor
from opsexec.steps import ImageImport
from opsexec.testing import MemoryAudit
from tests.conftest import require
from tests.parts.bottle_engine import BottleEngine
from tests.parts.ops_agent import OpsAgent
from tests.parts.sshd import Sshd, find_sshd
from tests.parts.targets import Target, over_ssh
from tests.parts.tiny_image import tiny_tar
from tests.parts.unix_user import current_user

TINY = "opsexec-test/tiny:1"
OURS = {"test.of": "containers"}
IMAGES = {"test.image": "tiny"}
"""Another label: a container carries its image's labels beside its own."""


async def blocks(data: bytes, size: int = 1 << 18) -> AsyncIterator[bytes]:
    """A stream of these bytes."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


@dataclass
class Ways:
    """The servers between a test and the engine."""

    engine: BottleEngine
    sshd: Sshd
    agent: OpsAgent

    def target(self, name: str) -> Target:
        """One way, by its name."""
        if name == "ssh":
            return over_ssh(name, self.sshd.endpoint(), MemoryAudit())
        if name == "agent":
            return Target(name, self.agent.url, current_user(), MemoryAudit())
        return Target(name, "local:", current_user(), MemoryAudit())


def executor() -> HostExecutor:
    """An executor of this machine that may do everything."""
    return LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit())


@contextmanager
def ways_to(engine: BottleEngine) -> Iterator[Ways]:
    """All ways, and the small image; DOCKER_HOST of this process has to name the engine already."""

    async def load() -> None:
        async with executor() as ex:
            await ex.run(ImageImport(name=TINY, labels=IMAGES), stdin=blocks(tiny_tar()))

    asyncio.run(load())
    variable = {"DOCKER_HOST": engine.address}
    with Sshd(extra=[f"SetEnv DOCKER_HOST={engine.address}"]) as sshd, OpsAgent(environment=variable) as agent:
        yield Ways(engine, sshd, agent)


@pytest.fixture(scope="module")
def ways(bottle_engine: BottleEngine) -> Iterator[Ways]:
    """All ways to the engine of the tests, which this process asks too while a file's tests run."""
    require(find_sshd() is not None, "needs OpenSSH's server (apt-get install openssh-server)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", bottle_engine.address)
        with ways_to(bottle_engine) as found:
            yield found
