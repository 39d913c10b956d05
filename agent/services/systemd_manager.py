"""systemd as the manager of one service."""

from __future__ import annotations

import re

from agent.services.acts import Act
from agent.services.artifact import Places
from agent.services.look import Look
from agent.services.manager import STOP_S, Held, Inquiry
from agent.services.unit_state import unit_state
from opsexec.steps import ServiceControl, ServiceDefinition

PROTECTED = re.compile(r"(systemd-.*|dbus(-broker)?|init|ops-agent|sshd?|user@.*)\.(service|socket|scope)\Z")
"""What a host, or who asks, would not survive."""


class SystemdManager:
    """As `Manager` says."""

    caveats: tuple[str, ...] = ()

    def __init__(self, look: Look, places: Places) -> None:
        self.look = look
        self.places = places
        self.unit = look.service.unit
        self._user = look.service.user

    @property
    def definition(self) -> str:
        """The administrator's place; a unit of a package's stands elsewhere, and a mask covers it."""
        return f"{self.places.units}/{self.unit}"

    @property
    def shows(self) -> tuple[str, ...]:
        """systemctl's way."""
        return ("systemctl", "show", self.unit)

    async def state(self) -> dict[str, str]:
        """As `systemctl show` tells it."""
        return await unit_state(self.look)

    def protected(self) -> str | None:
        """What is needed is told apart by its name."""
        return f"{self.unit} is needed to run this host, or this command" if PROTECTED.match(self.unit) else None

    def start(self, state: dict[str, str], *, again: bool) -> list[Act]:
        """One act."""
        if again:
            return [Act("restart", ServiceControl(self.unit, "restart", self._user))]
        return [Act("start", ServiceControl(self.unit, "start", self._user))]

    def stop(self, *, timeout_s: float | None = None) -> list[Act]:
        """One act."""
        return [Act("stop", ServiceControl(self.unit, "stop", self._user, timeout_s=timeout_s), "end it")]

    def kill(self) -> Act:
        """SIGKILL to the whole control group."""
        return Act("kill", ServiceDefinition(self.unit, "kill", self._user))

    def stopped(self, state: dict[str, str]) -> bool:
        """Whether no process of it is left."""
        return state["ActiveState"] in ("inactive", "failed")

    def enable(self) -> list[Act]:
        """One act."""
        return [Act("enable", ServiceControl(self.unit, "enable", self._user), "declared enabled")]

    def withhold(self) -> list[Act]:
        """None: a unit that nobody enabled isn't started at boot."""
        return []

    def reload(self, why: str) -> list[Act]:
        """One act."""
        return [Act("reload", ServiceDefinition(self.unit, "reload", self._user), why)]

    def withdraw(self) -> list[Act]:
        """Ended, and not started at boot."""
        return [
            Act("stop", ServiceControl(self.unit, "stop", self._user)),
            Act("disable", ServiceControl(self.unit, "disable", self._user)),
        ]

    def contain(self, leftovers: list[Act], moved: list[Act]) -> list[Act]:
        """Masking before the move fails: systemctl won't replace a file by its link."""
        unit, user = self.unit, self._user
        acts = [*self.stop(timeout_s=STOP_S), *leftovers]
        acts.append(Act("disable", ServiceControl(unit, "disable", user), "nothing starts it at boot"))
        acts += [*moved, *self.reload("let the manager forget it")]
        acts.append(Act("mask", ServiceDefinition(unit, "mask", user), "nobody can start it, not even by hand"))
        acts.append(Act("reset-failed", ServiceDefinition(unit, "reset-failed", user), "forget its failures"))
        return acts

    def contained(self, state: dict[str, str]) -> bool:
        """Masked, and no process is left."""
        return state["LoadState"] == "masked" and state["ActiveState"] in ("inactive", "failed")

    def note(self, state: dict[str, str]) -> Held:
        """Whether it was enabled, and ran."""
        return Held(
            unit=self.unit, user=self._user, unit_file_state=state.get("UnitFileState", ""),
            active_state=state.get("ActiveState", ""),
        )  # fmt: skip

    def restorable(self, path: str | None) -> bool:
        """Its own place alone."""
        return path in (None, self.definition)

    def put_back(self, held: Held, restore: list[Act], *, start: bool) -> list[Act]:
        """Unmasked first: the mask stands where the definition goes."""
        acts = [Act("unmask", ServiceDefinition(held.unit, "unmask", held.user), "let it be started again"), *restore]
        acts += self.reload("let the manager read it")
        if held.was_enabled:
            acts.append(Act("enable", ServiceControl(held.unit, "enable", held.user), "it was enabled"))
        if start:
            acts.append(Act("start", ServiceControl(self.unit, "start", self._user), "asked for by --start"))
        return acts

    def leftover_note(self, state: dict[str, str]) -> list[str]:
        """Nothing lives on: a stop ends the whole control group."""
        return []

    def evidence(self) -> list[Inquiry]:
        """All its properties."""
        return [Inquiry("service.state", "state.txt", "systemd.unit", self.unit)]

    def journal(self) -> str | None:
        """The journal's tail."""
        return "systemd.journal-tail-user" if self._user else "systemd.journal-tail"
