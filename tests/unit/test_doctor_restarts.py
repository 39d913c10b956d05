"""A runaway is told by its count and rate, however slowly it runs; what has settled is not one."""

from __future__ import annotations

import json

import pytest

from agent.services.checks import svc_state
from agent.services.doctor import Request, examine
from agent.services.manager_journal import last_bad_end
from agent.services.restart_rate import Rate, by_journal, over_last_start, since_last_start
from opsexec import CapabilitySet
from opsexec.testing import FakeHost, fake_executor
from tests.unit.test_doctor_engine import ANSWERS, FACTS, UNIT

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0
UPTIME_S = 40_000.0


def show(count: int, started_s: float, sub: str = "running") -> str:
    """The manager's answer about a unit that was started last `started_s` seconds ago."""
    at = int((UPTIME_S - started_s) * 1e6)
    return (
        f"LoadState=loaded\nActiveState=active\nSubState={sub}\nNRestarts={count}\nActiveEnterTimestampMonotonic={at}\n"
        f"InactiveExitTimestampMonotonic={at}\nFragmentPath=/etc/systemd/system/web.service\n"
    )


def told(*restarts: tuple[float, int], speaker: tuple[str, str] = ("_PID", "1")) -> str:
    """The journal's lines: seconds before now, and the counter."""
    lines = [
        {"MESSAGE": f"web.service: Scheduled restart job, restart counter is at {count}.", speaker[0]: speaker[1],
         "__REALTIME_TIMESTAMP": str(int((NOW - ago) * 1e6))}
        for ago, count in restarts
    ]  # fmt: skip
    return "\n".join(json.dumps(each) for each in lines)


async def look(count, started_s, journal="", *, held=None):
    answers = {**ANSWERS, "journalctl **": journal}
    answers["systemctl --no-pager --no-ask-password show **"] = show(count, started_s)
    host = FakeHost(
        files={"/etc/systemd/system/web.service": UNIT, "/etc/passwd": ""}, answers=answers,
        facts={**FACTS, "kernel": {"system": "Linux", "machine": "x86_64", "uptime_s": UPTIME_S}},
        samples=[{"ts": NOW}],
    )  # fmt: skip
    async with fake_executor(host, held or CapabilitySet.everything()) as ex:
        found = await examine(ex, Request("web", ("svc.restart-count",)))
    return next(each for each in found.findings if each.id == "svc.restart-count")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """The count of these hosts stands still, so there is nothing to wait for."""
    monkeypatch.setattr(svc_state, "WATCH_S", 0.01)


async def test_thousands_of_starts_are_a_runaway_with_count_and_rate_although_none_falls_into_the_short_look():
    found = await look(4711, 30)
    assert found.verdict == "fail"
    assert "4711 automatic restarts" in found.summary
    assert "565320 an hour over the 30 s since its last start" in found.summary


async def test_a_slow_runaway_is_told_by_what_the_journal_counts():
    found = await look(5000, 40, told((3600, 4970), (1800, 4985), (40, 5000)))
    assert found.verdict == "fail"
    assert "5000 automatic restarts, 30 an hour by the journal of 3600 s" in found.summary


async def test_four_restarts_in_four_weeks_are_no_runaway_however_fresh_the_last_one_is():
    found = await look(4, 60, told((28 * 86400, 1), (60, 4)))
    assert found.verdict == "warn"


async def test_what_restarted_long_ago_and_has_run_since_is_no_runaway():
    assert (await look(5, 36_000)).verdict == "warn"
    assert (await look(2, 10)).verdict == "info"


async def test_without_a_grant_on_the_journal_the_managers_own_numbers_count():
    held = CapabilitySet.of("facts:*", "service.read:*", "fs.read:/etc/**", "fs.read:/root/**", "fs.read:/var/lib/**")
    found = await look(5000, 40, told((28 * 86400, 1), (60, 4)), held=held)
    assert found.verdict == "fail"


def test_what_a_service_itself_says_of_restarts_does_not_count():
    assert by_journal(told((28 * 86400, 1), (60, 4), speaker=("UNIT", "web.service")), NOW) is None
    assert by_journal(told((28 * 86400, 1), (60, 4), speaker=("_PID", "4711")), NOW) is None


def test_a_users_manager_is_believed_too():
    assert by_journal(told((7200, 1), (60, 4), speaker=("_SYSTEMD_USER_UNIT", "init.scope")), NOW) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"MESSAGE": 1}',
        "[" * 9999,
        told((10, 5)),
        told((10, 5), (5, 2)),
        told((-99, 1), (-9, 4)),
    ],
)
def test_a_journal_that_tells_nothing_is_no_rate(text):
    assert by_journal(text, NOW) is None


@pytest.mark.parametrize(
    "found",
    [{}, {"ActiveEnterTimestampMonotonic": "0"}, {"ActiveEnterTimestampMonotonic": "never"},
     {"ActiveEnterTimestampMonotonic": "9" * 40}],
)  # fmt: skip
def test_a_manager_that_does_not_tell_when_is_no_rate(found):
    assert since_last_start(found, UPTIME_S) is None


def test_a_rate_over_less_than_a_second_is_one_over_a_second():
    assert over_last_start(2, 0.0) == Rate(7200.0, "over the 0 s since its last start")


def ended(message: str, pid: str = "1") -> str:
    return json.dumps({"MESSAGE": message, "_PID": pid}) + "\n"


def test_how_it_ended_before_a_restart_is_the_managers_last_word_of_it():
    text = ended("web.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED")
    assert last_bad_end(text) == "status 3"
    text += ended("web.service: Main process exited, code=killed, status=9/KILL") + ended("Started web.service.")
    assert last_bad_end(text) == "signal 9"
    assert last_bad_end(ended("web.service: Main process exited, code=exited, status=3/N", pid="4711")) is None
    assert last_bad_end(ended("all went well") + "{\n[]\n") is None
