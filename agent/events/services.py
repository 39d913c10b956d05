"""Services that change their state: units of the host's service manager, compared every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.events.clock import stamp
from agent.events.feed import Event
from agent.marked_host import new_mark
from opsexec.capability import program_candidates
from opsexec.errors import OpsError
from opsexec.executor import Stream
from opsexec.hosts.local import LocalHost
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder

LOOK_S = 5.0
ABSENT_S = 60.0
"""Seconds until a manager that didn't answer is asked again."""
ASK_S = 20.0
MAX_LIST = 4 << 20
MAX_CHANGES = 200
"""Changes of one look that are told one by one."""

Units = dict[str, str]
WORDS: tuple[str, ...] = (
    "systemctl", "--no-pager", "--no-ask-password", "list-units", "--all", "--full", "--plain", "--no-legend",
    "--type=service",
)  # fmt: skip


class Services:
    """Implements Source: `services` first, with those that have failed, then one `service` event a change.

    `runtime_dir`: of the user whose own service manager is followed, None = the system's.
    """

    def __init__(self, host: LocalHost, runtime_dir: str | None = None) -> None:
        self._host = host
        self._runtime_dir = runtime_dir
        self._first: Event | None = None

    def now(self) -> Event | None:
        """As `Source.now`."""
        return self._first

    async def run(self, tell: Callable[[Event], None]) -> None:
        """As `Source.run`."""
        self._first = None
        before: Units | None = None
        while True:
            units = await self._units()
            if units is None:
                if before is not None or self._first is None:
                    self._first = absent("services", "no service manager answers")
                    tell(self._first)
                before = None
                await asyncio.sleep(ABSENT_S)
                continue
            failed = sorted(name for name, state in units.items() if state.startswith("failed"))
            first = {"ts": stamp(), "event": "services", "services": {"failed": failed}}
            if before is None:
                tell(first)
            else:
                for event in changes(before, units)[:MAX_CHANGES]:
                    tell(event)
            self._first, before = first, units
            await asyncio.sleep(LOOK_S)

    async def _units(self) -> Units | None:
        """Return each unit's state; None where no manager answers."""
        programs = program_candidates(WORDS[0])
        env, argv = {"LC_ALL": "C", "SYSTEMD_COLORS": "0"}, WORDS
        if self._runtime_dir is not None:
            env["XDG_RUNTIME_DIR"] = self._runtime_dir
            argv = (*WORDS, "--user")
        spec = ProcessSpec(run=new_mark(), programs=programs, admitted=programs, argv=argv, env=env, timeout_s=ASK_S)
        listed = _Listed()
        recorder = Recorder(listed, limit_bytes=MAX_LIST)
        try:
            ended = await self._host.run_process(spec, recorder)
            await recorder.finish()
        except OpsError:
            return None
        finally:
            recorder.abandon()
        return parse_units(listed.text()) if ended.exit_code == 0 else None


class _Listed:
    """A sink that keeps what systemctl lists."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep stdout."""
        if stream == "stdout":
            self._blocks.append(data)

    def text(self) -> str:
        """All of it."""
        return b"".join(self._blocks).decode("utf-8", "replace")


def parse_units(text: str) -> Units:
    """Return each unit's active and sub state, like "active/running", out of `systemctl list-units --plain`."""
    units = {}
    for line in text.splitlines():
        words = line.split(None, 4)
        if len(words) >= 4:
            units[words[0]] = f"{words[2]}/{words[3]}"
    return units


def changes(before: Units, after: Units) -> list[Event]:
    """Return an event for each unit whose state is another one; None stands for a unit that isn't loaded."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    ts = stamp()
    return [
        {"ts": ts, "event": "service", "unit": name, "was": before.get(name), "is": after.get(name)} for name in names
    ]


def absent(reading: str, why: str) -> Event:
    """Return the event that says that something can't be followed here."""
    return {"ts": stamp(), "event": "absent", "reading": reading, "reason": why}
