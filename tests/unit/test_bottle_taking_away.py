"""Taking a bottle away from an engine that is busy, or that went away itself."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from bottle import taking_away
from bottle.taking_away import gone
from opsexec.errors import ConnectionLost, HostUnsuitable, OpsError, StepFailed
from opsexec.steps import NetworkRemove, RemoveFile, Step

IDENTITY = "worker-00000001"


class FakeBusyEngine:
    """Where a network is in use for its first `busy` removals, as while an engine is still ending its container."""

    def __init__(self, busy: int) -> None:
        self.busy = busy
        self.asked: list[Step] = []

    async def run(self, step: Step) -> None:
        self.asked.append(step)
        if len(self.asked) <= self.busy:
            raise StepFailed("has active endpoints")


NETWORK = NetworkRemove(name=f"bottle-{IDENTITY}-outer", labels={"bottle.identity": IDENTITY})


@pytest.mark.anyio
async def test_what_is_still_in_use_is_taken_away_a_moment_later() -> None:
    for busy in (0, 1, 2):
        engine = FakeBusyEngine(busy)
        await gone(engine.run, NETWORK, iter((0.0, 0.0)))
        assert engine.asked == [NETWORK] * (busy + 1)
    engine = FakeBusyEngine(3)
    with pytest.raises(StepFailed, match="active endpoints"):
        await gone(engine.run, NETWORK, iter((0.0, 0.0)))


@pytest.mark.anyio
@pytest.mark.parametrize(("busy", "tried", "told"), [(2, 3, 0), (99, 8, 2)])
async def test_the_end_of_a_bottle_leaves_no_network_that_is_in_use_a_moment_longer(
    busy: int, tried: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_away, "PAUSES_S", (0.0,) * 6)
    said: list[str] = []
    engine = FakeBusyEngine(busy)
    steps = (NETWORK,) if told == 0 else (NETWORK, NETWORK)  # the pauses are for all of them together
    await taking_away.undone([("outer network", steps)], engine.run, said.append)
    assert (len(engine.asked), len(said)) == (tried, told)


@pytest.mark.anyio
async def test_what_cannot_be_undone_for_one_reason_is_told_once_by_what_was_made() -> None:
    said: list[str] = []

    async def run(step: Step) -> None:
        raise HostUnsuitable("no container engine")

    await taking_away.undone(
        [("outer network", (NETWORK,) * 4), ("agent", (NETWORK,))], run, taking_away.once(said.append)
    )
    assert said == [f"undoing {name} failed: no container engine" for name in ("outer network", "agent")]


@pytest.mark.anyio
@pytest.mark.parametrize("error", [HostUnsuitable, ConnectionLost])
@pytest.mark.parametrize(
    ("away", "within_s", "told"), [(3, 60.0, ["waiting 60 s"]), (999, 0.0, ["waiting 0 s", "run on"])]
)
async def test_an_engine_that_went_away_is_waited_for_once(
    away: int, within_s: float, told: list[str], error: type[OpsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it kept would run on with nobody to answer for it; and how long it stays away isn't for us to say."""
    monkeypatch.setattr(taking_away, "PAUSES_S", (0.0,) * 6)
    said: list[str] = []
    asked: list[Step] = []

    async def run(step: Step) -> None:
        asked.append(step)
        if len(asked) <= away:
            raise error("no container engine")

    patient = taking_away.waited_for(run, said.append, within_s)
    for _ in range(2):
        with nullcontext() if away == 3 else pytest.raises(error):
            await patient(NETWORK)
    assert len(asked) == (5 if away == 3 else 3)
    assert len(said) == len(told)
    assert all(part in line for part, line in zip(told, said, strict=True))


@pytest.mark.anyio
async def test_a_file_that_can_t_be_taken_away_is_not_waited_for() -> None:
    engine = FakeBusyEngine(99)
    with pytest.raises(StepFailed):
        await gone(engine.run, RemoveFile("/x"), iter((1e6,)))
