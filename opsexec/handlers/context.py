"""What a handler is given beside its Step, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from opsexec.hosts.port import ProcessExit

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.hosts.port import Host
    from opsexec.recorder import Recorder


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as its handler sees it. `timeout_s`: seconds, already within the set's limit; None = none."""

    run: str
    host: Host
    capabilities: CapabilitySet
    recorder: Recorder
    check: bool = False
    diff: bool = False
    timeout_s: float | None = None
    stdin: AsyncIterator[bytes] | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler learned. `exit`: how the process ended, None where no process was the point of the step."""

    exit: ProcessExit | None = None
    changed: bool = False
    diff: str | None = None
    skipped: str | None = None
    value: Any = None
