"""Whether a service may restart without end: what systemd.service(5) and systemd.unit(5) say, as arithmetic."""

from __future__ import annotations

import math

import msgspec

DEFAULT_INTERVAL_S = 10.0
DEFAULT_BURST = 5
DEFAULT_RESTART_S = 0.1
"""systemd-system.conf(5); a host may set others, which `systemctl show` then tells."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The effective settings; spans in seconds."""

    restart: str = "no"
    restart_s: float = DEFAULT_RESTART_S
    interval_s: float = DEFAULT_INTERVAL_S
    burst: int = DEFAULT_BURST

    @property
    def per_hour(self) -> float:
        """The most starts an hour when it fails at once, which is infinite when nothing stops it."""
        if self.restart == "no":
            return 0
        return math.inf if why_unbounded(self) else float(self.burst)


def why_unbounded(limits: Limits) -> str | None:
    """Return why restarts never end; None when they do."""
    if limits.restart in ("no", ""):
        return None
    if limits.interval_s <= 0:
        return "StartLimitIntervalSec=0 switches the start limit off"
    if limits.burst <= 0:
        return "StartLimitBurst=0 switches the start limit off"
    if math.isfinite(limits.interval_s) and limits.burst * limits.restart_s >= limits.interval_s:
        return (
            f"{limits.burst} starts, {limits.restart_s:g} s apart, take longer than the interval of "
            f"{limits.interval_s:g} s, so the limit is never reached"
        )
    return None
