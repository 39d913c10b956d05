"""When a schedule is due: through daylight saving both ways, over gaps, and what no calendar has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.schedule.calendar import Calendar
from opsexec.errors import BadStep

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


def utc(seconds: int | None) -> str:
    assert seconds is not None
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M")


def dues(cron: str, begin: int, end: int, zone: str = BERLIN) -> list[str]:
    found, more = Calendar(cron, zone).between(begin, end, 1000)
    assert not more
    return [utc(each) for each in found]


def test_a_time_that_spring_leaves_out_is_due_when_the_clock_is_put_forward() -> None:
    # 2026-03-29 02:00 becomes 03:00, which is 01:00 UTC
    assert dues("30 2 * * *", at("2026-03-28T12:00"), at("2026-03-30T12:00")) == ["03-29 01:00", "03-30 00:30"]


def test_a_time_that_autumn_has_twice_is_due_once() -> None:
    # 2026-10-25 03:00 becomes 02:00 again: 02:30 is at 00:30 and at 01:30 UTC
    assert dues("30 2 * * *", at("2026-10-24T12:00"), at("2026-10-26T12:00")) == ["10-25 00:30", "10-26 01:30"]


def test_a_time_that_was_due_before_the_fold_is_not_due_again_within_it() -> None:
    calendar = Calendar("30 2 * * *", BERLIN)
    for after in (at("2026-10-25T02:30"), at("2026-10-25T02:45"), at("2026-10-25T02:10", fold=1)):
        assert utc(calendar.next(after)) == "10-26 01:30"


def test_every_hour_goes_on_through_both_changes() -> None:
    spring = dues("0 * * * *", at("2026-03-29T00:30"), at("2026-03-29T05:30"))
    assert spring == ["03-29 00:00", "03-29 01:00", "03-29 02:00", "03-29 03:00"]
    autumn = dues("0 * * * *", at("2026-10-25T00:30"), at("2026-10-25T04:30"))
    assert autumn == ["10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]


def test_seconds_go_with_an_open_hour_alone() -> None:
    assert Calendar("*/10 * * * * *", "UTC").next(0) == 10
    for cron in ("0 30 2 * * *", "0 * 2 * * *", "0 5 * * * *"):
        with pytest.raises(BadStep, match="seconds"):
            Calendar(cron, BERLIN)


@pytest.mark.parametrize("cron", ["", "* * * *", "60 * * * *", "a b c d e", "0 0 31 2 *", "* * * * * * *", "@daily"])
def test_what_is_no_calendar_is_refused(cron: str) -> None:
    with pytest.raises(BadStep):
        Calendar(cron, "UTC")


@pytest.mark.parametrize("zone", ["", "Mars/Phobos", "../../etc/passwd", "/etc/localtime", "UTC\0"])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadStep, match="time zone"):
        Calendar("* * * * *", zone)


def test_of_a_long_gap_the_last_times_are_found_without_looking_at_all() -> None:
    ten_years = 10 * 365 * 86400
    found, more = Calendar("* * * * * *", "UTC").between(0, ten_years, 5)
    assert more
    assert found == [ten_years - n for n in (4, 3, 2, 1, 0)]
    found, _ = Calendar("0 0 1 1 *", "UTC").between(0, ten_years, 3)
    assert [utc(each) for each in found] == ["01-01 00:00"] * 3


@pytest.mark.parametrize("cron", ["* * * * 1", "* * * * * 1"])
def test_of_a_long_gap_the_last_times_are_found_though_nothing_was_due_of_late(cron: str) -> None:
    sunday = at("2026-11-22T18:00")
    found, more = Calendar(cron, "UTC").between(sunday - 400 * 86400, sunday, 2)
    assert more
    assert [utc(each) for each in found][-1] == "11-16 23:59"
    assert len(found) == 2
    assert Calendar(cron, "UTC").between(sunday - 5 * 86400, sunday, 2) == ([], False)


class Counted(Calendar):
    """Counts the due times that are looked at, each of which the agent's loop waits for."""

    looked = 0

    def _times(self, after: int) -> Iterator[int]:
        for each in super()._times(after):
            self.looked += 1
            yield each


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 * * * *", "0 * * * *", "* * * * * *", "*/10 * * * * *"])
@pytest.mark.parametrize("days", [120, 1100])
def test_of_a_gap_of_months_no_more_is_looked_at_than_is_asked_for_and_a_span_too_long(cron: str, days: int) -> None:
    calendar = Counted(cron, BERLIN)
    until = at("2026-11-22T18:00")
    found, more = calendar.between(until - days * 86400, until, 31)
    assert (len(found), more) == (31, True)
    assert found[-1] == max(found) <= until
    assert calendar.looked < 3700


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15,45 1-3 * * SUN", "*/20 * * * * *"]),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_the_next_time_is_after_and_the_same_however_one_comes_to_it(cron: str, zone: str, after: int) -> None:
    calendar = Calendar(cron, zone)
    first = calendar.next(after)
    assert first is not None
    assert first > after
    second = calendar.next(first)
    assert second is not None
    assert second > first
    assert calendar.between(after, second, 10)[0] == [first, second]
    assert calendar.next(first - 1) == first
