"""What an agent tells of its host: bounded, in order, and out of what engines and managers say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.events.containers import container_event
from agent.events.feed import Feed
from agent.events.hub import Hub, run_event
from agent.events.query import events_request
from agent.events.services import changes, parse_units
from agent.events.trusted import require_trusted
from opsexec.errors import OpsError
from opsexec.steps.events import EVENT_NAMES, Events
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


async def test_events_that_do_not_fit_are_counted_in_their_place() -> None:
    feed = Feed(3)
    for number in range(8):
        feed.put({"n": number})
    got = [await feed.get() for _ in range(4)]
    assert [each.get("n") for each in got] == [0, 1, 2, None]
    assert (got[3]["event"], got[3]["count"]) == ("dropped", 5)
    feed.put({"n": 8})
    assert (await feed.get())["n"] == 8
    waiting = asyncio.ensure_future(feed.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.put({"n": 9})
    assert (await waiting)["n"] == 9


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_no_event_is_lost_without_being_counted(puts: list[bool], limit: int) -> None:
    async def play() -> None:
        feed, told, seen, waiting = Feed(limit), 0, 0, 0
        for put in puts:
            if put:
                feed.put({"event": "x"})
                told += 1
                waiting = 1
            elif waiting:
                event = await feed.get()
                seen += event.get("count", 1)
                waiting = told - seen
        while told > seen:
            seen += (await asyncio.wait_for(feed.get(), 20)).get("count", 1)
        assert told == seen

    asyncio.run(play())


class Ticking:
    """A source that says what it is told to."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.tell: Any = None

    def now(self) -> dict[str, Any]:
        return {"event": "first"}

    async def run(self, tell: Any) -> None:
        self.started += 1
        self.tell = tell
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1


async def test_a_source_works_only_while_someone_follows_it() -> None:
    hub, source = Hub(), Ticking()
    hub.offer("ticks", source)
    one, other = Feed(), Feed()
    await asyncio.sleep(0)
    assert source.started == 0
    with hub.following(["ticks"], one):
        await asyncio.sleep(0)
        with hub.following(["ticks", "unknown"], other):
            assert source.started == 1
            assert (await other.get())["event"] == "first"
            source.tell({"event": "tick"})
            assert (await one.get(), await other.get()) == ({"event": "tick"}, {"event": "tick"})
        assert source.ended == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (source.started, source.ended) == (1, 1)


class Failing(Ticking):
    """One that fails the first time."""

    async def run(self, tell: Any) -> None:
        if not self.started:
            self.started += 1
            raise KeyError("nobody foresaw it")
        await super().run(tell)


async def test_a_source_that_failed_is_started_again_for_who_comes_after(capsys: pytest.CaptureFixture[str]) -> None:
    hub, source = Hub(), Failing()
    hub.offer("ticks", source)
    first, second = Feed(), Feed()
    with hub.following(["ticks"], first):
        await eventually(lambda: "failed (KeyError)" in capsys.readouterr().err, within_s=10, what="it has failed")
        with hub.following(["ticks"], second):
            await eventually(lambda: source.started == 2, within_s=10, what="it works again")
            source.tell({"event": "tick"})
            assert (await first.get(), await second.get()) == ({"event": "tick"}, {"event": "tick"})


def test_runs_are_told_by_the_records_that_begin_and_end_them() -> None:
    begun = {
        "run": "r", "principal": "unix:a", "decision": "allow", "requires": ["exec:true"], "step": {"type": "exec"},
    }  # fmt: skip
    started = run_event(begun)
    assert started is not None
    assert (started["what"], started["step"], started["run"], started["requires"]) == (
        "started",
        "exec",
        "r",
        ["exec:true"],
    )
    ended = run_event({"run": "r", "principal": "unix:a", "outcome": {"exit_code": 3, "digest": "x"}})
    assert ended is not None
    assert (ended["what"], ended["exit_code"], "digest" in ended) == ("ended", 3, False)
    for record in (
        {"run": None, "decision": "allow", "requires": ["x"]},
        {"run": "r", "decision": "allow", "requires": None, "step": {"type": "run.read"}},
        {"run": "r", "decision": "deny", "requires": ["x"]},
    ):
        assert run_event(record) is None


async def test_nobody_hears_of_a_run_that_is_not_theirs() -> None:
    hub, feed = Hub(), Feed()
    with hub.following_runs(feed, lambda run, principal: principal == "unix:me"):
        hub.heard({"run": "a", "principal": "unix:other", "outcome": {"exit_code": 0}})
        hub.heard({"run": "b", "principal": "unix:me", "outcome": {"exit_code": 0}})
        assert (await feed.get())["run"] == "b"


def test_what_an_engine_says_becomes_an_event_or_nothing() -> None:
    line = json.dumps(
        {"Type": "container", "Action": "die", "status": "die", "time": 1,
         "Actor": {"ID": "a" * 64, "Attributes": {"name": "web", "image": "nginx", "exitCode": "137"}}}
    ).encode()  # fmt: skip
    event = container_event(line, "/run/docker.sock")
    assert event is not None
    assert (event["action"], event["name"], event["image"], event["exit_code"]) == ("die", "web", "nginx", 137)
    for other in (
        b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"Type": "image", "Action": "pull"}', b'{"Type": 3}',
        b'{"Type": "container", "Action": "exec_start: /bin/probe"}', b'{"Type": "container", "Actor": null}',
    ):  # fmt: skip
        assert container_event(other, "/x") is None
    odd = container_event(b'{"Type":"container","Action":"x","Actor":{"ID":5,"Attributes":[]}}', "/x")
    assert odd is not None
    assert (odd["id"], odd["name"]) == (None, None)


def test_a_socket_of_somebody_elses_is_not_believed(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(OSError, match=r"."):
            require_trusted(str(path))


def test_units_are_compared_by_state() -> None:
    listed = "a.service loaded active running The A\nb.service not-found inactive dead b.service\n\nc.service loaded\n"
    before = parse_units(listed)
    assert before == {"a.service": "active/running", "b.service": "inactive/dead"}
    after = {"a.service": "failed/failed", "new.service": "active/exited"}
    assert [(each["unit"], each["was"], each["is"]) for each in changes(before, after)] == [
        ("a.service", "active/running", "failed/failed"),
        ("b.service", "inactive/dead", None),
        ("new.service", None, "active/exited"),
    ]
    assert changes(after, after) == []


def test_a_query_is_an_events_step() -> None:
    request = events_request("names=runs,load&interval=0.5&count=3")
    assert request.decoded_step() == Events(names=("runs", "load"), interval_s=0.5, count=3)
    assert {str(need) for need in Events().requires()} == {f"observe:{name}" for name in EVENT_NAMES}
    for query in (
        "names=passwords",
        "interval=x",
        "interval=1e9",
        "interval=0.001",
        "count=-1",
        "what=1",
        "count=1&count=2",
    ):
        with pytest.raises(OpsError):
            events_request(query)
