"""Steps that read a lot keep an agent's threads busy: of one principal two are done at once, and others' don't wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.desk import READS_AT_ONCE
from opsexec.errors import StepTimeout
from opsexec.steps import ListTree, ReadFile, Stat, Step, Survey
from tests.parts.kept_schedules import ME, NOON, FakeClock, Kept

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [ReadFile, ListTree, Survey])
async def test_a_third_read_waits_for_ones_others(tmp_path: Path, kind: type[Step]) -> None:
    path = tmp_path / "file" if kind is ReadFile else tmp_path
    (tmp_path / "file").write_text("x")
    async with Kept(tmp_path / "state", FakeClock(NOON)) as kept:
        places = kept.desk.reading[ME]
        for _ in range(READS_AT_ONCE):
            await places.acquire()
        with pytest.raises(StepTimeout, match="waiting for one's other reads"):
            await kept.do(kind(path=str(path), timeout_s=0.05))  # type: ignore[call-arg]  # each of them has a path
        await kept.do(Stat(str(path)))  # what is small doesn't wait
        waiting = asyncio.create_task(kept.do(kind(path=str(path))))  # type: ignore[call-arg]  # as above
        places.release()
        assert (await waiting).ok
        places.release()
        assert (await kept.do(kind(path=str(path)))).ok  # type: ignore[call-arg]  # as above
