"""When a schedule is due: cron expressions in a time zone, as whole seconds since 1970 (UTC)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from opsexec.errors import BadStep

MAX_LOOK = 5000
"""Due times that are looked at one by one in a gap; of a longer row only the last are."""

SPANS_S = (3600, 86400, 32 * 86400, 366 * 86400)


class Calendar:
    """One expression in one time zone; raises BadStep for what is neither, and for a day that never comes.

    Times that daylight saving leaves out are due when the clock is put forward; those it has twice are due the first
    time. Expressions with `*` hours or minutes go on through both, as in Debian's cron.
    """

    def __init__(self, expression: str, timezone: str) -> None:
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise BadStep(f"there is no time zone {timezone!r} here", hint="a name like Europe/Berlin") from error
        self._expression = expression
        fields = expression.split()
        if len(fields) == 6 and not (fields[1].startswith("*") and fields[2].startswith("*")):
            # cronsim mends the hour that comes twice for five fields alone
            text = f"{expression!r} has seconds beside a fixed time"
            raise BadStep(text, hint="with seconds, minutes and hours are *")
        try:
            found = next(self._times(0), None)
        except (CronSimError, ValueError) as error:
            raise BadStep(f"{expression!r} is no cron expression: {error}", hint='like "0 3 * * *"') from error
        if found is None:
            raise BadStep(f"{expression!r} never comes", hint="is there such a day?")

    def _times(self, after: int) -> Iterator[int]:
        for found in CronSim(self._expression, datetime.fromtimestamp(after, self._zone)):
            at = int(found.timestamp())
            if at > after:  # an hour that comes twice is looked at from its first time on
                yield at

    def next(self, after: int) -> int | None:
        """Return the first due time after a time; None when none is left."""
        return next(self._times(after), None)

    def between(self, after: int, until: int, limit: int) -> tuple[list[int], bool]:
        """Return the last `limit` due times after one time, up to another, and whether there may be more of them."""
        last = until if until - after <= SPANS_S[0] else self._last(after, until)
        if last is None:
            return [], False
        spans = [after, *(last - span for span in SPANS_S if last - span > after)]
        best: list[int] = []
        for begin in sorted(spans, reverse=True):  # a look takes some 50 us, and the agent does nothing else meanwhile
            found: deque[int] = deque(maxlen=limit)
            count = 0
            for at in self._times(begin):
                if at > until:
                    break
                found.append(at)
                count += 1
                if count >= MAX_LOOK:
                    return best or list(found), True
            best = list(found)
            if begin == after or count > limit:
                return best, begin > after or count > limit
        return best, True

    def _last(self, after: int, until: int) -> int | None:
        """Return the last due time after one time, up to another; long idle times may lie after it."""
        found = self.next(after)
        if found is None or found > until:
            return None
        while found < until:  # nothing that counts is due after `until`
            middle = (found + until) // 2
            later = self.next(middle)
            if later is None or later > until:
                until = middle
            else:
                found = later
        return found
