"""Whose filter of system calls a container has on an engine that has one of its operator's, told by a program in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import get_args

import pytest

from opsexec import CapabilitySet, LocalExec
from opsexec.steps import ContainerRun
from opsexec.steps.container_shape import Syscalls
from opsexec.testing import MemoryAudit
from tests.parts.bottle_engine import IMAGE, BottleEngine
from tests.parts.bottle_engine import bottle_engine as started

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]  # a first test starts an engine too

REFUSED = 77
"""An errno that no other filter answers with."""
OPERATORS = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": REFUSED}],
}
ASKS = """
import os
try: print(os.getpriority(os.PRIO_PROCESS, 0))
except OSError as error: print(error.errno)
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BottleEngine]:
    """An engine whose operator wrote a profile."""
    profile = tmp_path_factory.mktemp("operator") / "profile.json"
    profile.write_text(json.dumps(OPERATORS))
    with started("--seccomp-profile", str(profile)) as engine:
        yield engine


@pytest.mark.parametrize("syscalls", get_args(Syscalls))
async def test_a_filter_that_the_engine_s_operator_wrote_stays(
    strict: BottleEngine, syscalls: Syscalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", strict.address)
    step = ContainerRun(
        name=f"asks-{syscalls}",
        image=IMAGE,
        labels={"test.of": "container-syscalls"},
        argv=["/usr/bin/python3", "-c", ASKS],
        syscalls=syscalls,
    )
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        assert int((await ex.run(step)).stdout) == REFUSED
