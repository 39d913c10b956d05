"""launchd as the manager of one service. Written after launchctl(1), tried against a stand-in: untested on a mac."""

from __future__ import annotations

import re

from agent.services.acts import Act
from agent.services.artifact import Places
from agent.services.launchd_identity import Identity
from agent.services.launchd_unit import launchd_unit_state
from agent.services.look import Look
from agent.services.manager import STOP_S, UNTESTED, Held, Inquiry
from opsexec.steps import LaunchdControl
from opsexec.steps.launchd import LaunchdAction

PROTECTED = re.compile(r"com\.apple\..*|com\.openssh\..*|(org\.|opsexec\.)ops-agent", re.IGNORECASE)
"""What a mac, or who asks, would not survive."""


class LaunchdManager:
    """As `Manager` says. A job that is stopped is booted out; one in quarantine is disabled, its property list away."""

    caveats: tuple[str, ...] = (UNTESTED,)

    def __init__(self, look: Look, places: Places, who: Identity) -> None:
        self.look = look
        self.places = places
        self.who = who
        self.unit = who.label
        self._user = look.service.user

    @property
    def definition(self) -> str:
        """The property list, where it stands in the manager's own place; else where one of ours would."""
        path = self.who.path
        if path is not None and path.rpartition("/")[0] == self.places.units:
            return path
        return f"{self.places.units}/{self.unit}.plist"

    @property
    def shows(self) -> tuple[str, ...]:
        """launchctl's way."""
        return ("launchctl", "print", self.who.target)

    async def state(self) -> dict[str, str]:
        """As `launchctl print` and `print-disabled` tell it."""
        return await launchd_unit_state(self.look)

    def protected(self) -> str | None:
        """What is the mac's own, or ours, and what isn't in the manager's reach."""
        if PROTECTED.fullmatch(self.unit):
            return f"{self.unit} is needed to run this host, or this command"
        path = self.who.path
        if path is not None and not self._user and path.rpartition("/")[0].endswith("/Library/LaunchAgents"):
            return f"{path} is an agent of logins, no service of the system: --user, as that login"
        return None

    def _control(self, action: LaunchdAction, timeout_s: float | None = None) -> LaunchdControl:
        return LaunchdControl(target=self.who.target, action=action, timeout_s=timeout_s)

    def _bootstrap(self, path: str) -> LaunchdControl:
        return LaunchdControl(target=self.who.target, action="bootstrap", path=path)

    def start(self, state: dict[str, str], *, again: bool) -> list[Act]:
        """Loaded, then started. A job of ours is loaded anew, for launchd keeps the definition that it loaded."""
        declared = self.look.declared
        loaded, path = state["Loaded"] == "yes", self.who.path or self.definition
        if again and loaded and declared is not None and declared.runtime == "systemd":
            return [Act("restart", self._control("restart"))]
        acts = []
        if again and loaded:
            acts.append(Act("bootout", self._control("bootout"), "launchd keeps the definition it has loaded"))
        if again or not loaded:
            acts.append(Act("bootstrap", self._bootstrap(path), "load its definition"))
        acts.append(Act("kickstart", self._control("kickstart"), "start it"))
        return acts

    def stop(self, *, timeout_s: float | None = None) -> list[Act]:
        """One act: what is only killed may be started again at once."""
        return [Act("stop", self._control("bootout", timeout_s), "end it, and unload it")]

    def kill(self) -> Act:
        """SIGKILL to its process."""
        return Act("kill", self._control("kill"))

    def stopped(self, state: dict[str, str]) -> bool:
        """Whether launchd doesn't know it any more."""
        return state["Loaded"] == "no"

    def enable(self) -> list[Act]:
        """One act."""
        return [Act("enable", self._control("enable"), "declared enabled")]

    def withhold(self) -> list[Act]:
        """Disabled first: launchd loads at boot whatever stands in its directories."""
        return [Act("disable", self._control("disable"), "not declared enabled")]

    def reload(self, why: str) -> list[Act]:
        """None: launchd reads a definition when it loads it."""
        return []

    def withdraw(self) -> list[Act]:
        """Ended; without its property list nothing loads it again."""
        return self.stop()

    def contain(self, leftovers: list[Act], moved: list[Act]) -> list[Act]:
        """Disabled before the move: a run that is cut off leaves nothing that a reboot loads."""
        disable = Act("disable", self._control("disable"), "nobody can load it, not even by hand")
        return [*self.stop(timeout_s=STOP_S), *leftovers, disable, *moved]

    def contained(self, state: dict[str, str]) -> bool:
        """Not loaded, disabled in launchd's database, and its property list isn't in the manager's place."""
        path = self.who.path
        away = path is None or path.rpartition("/")[0] != self.places.units
        return state["Loaded"] == "no" and state["Overridden"] == "disabled" and away

    def note(self, state: dict[str, str]) -> Held:
        """Also what the job is called: without its property list nobody else says so."""
        return Held(
            unit=self.unit, user=self._user, unit_file_state=state.get("UnitFileState", ""),
            active_state=state.get("ActiveState", ""), domain=self.who.domain, loaded=state.get("Loaded") == "yes",
        )  # fmt: skip

    def restorable(self, path: str | None) -> bool:
        """The manager's own place alone."""
        if path is None:
            return True
        directory, _, file = path.rpartition("/")
        return directory == self.places.units and file.endswith(".plist")

    def put_back(self, held: Held, restore: list[Act], *, start: bool) -> list[Act]:
        """Enabled where it was, and loaded where it was, but through a link; --start loads it in any case."""
        acts = list(restore)
        enabled = held.unit_file_state != "disabled"
        if enabled or start:
            acts.append(Act("enable", self._control("enable"), "it was enabled" if enabled else "--start"))
        if held.path is not None and held.target is None and (start or (held.loaded and enabled)):
            acts.append(Act("bootstrap", self._bootstrap(held.path), "it was loaded" if held.loaded else "--start"))
        if start:
            acts.append(Act("start", self._control("kickstart"), "asked for by --start"))
        return acts

    def leftover_note(self, state: dict[str, str]) -> list[str]:
        """launchd has no control groups; and what stands elsewhere isn't taken away, only kept from being loaded."""
        notes = ["what it has started in a process group of its own lives on: launchd doesn't know of it"]
        if self.who.path is not None and self.who.path != self.definition:
            notes.append(f"{self.who.path} stays: launchd's database keeps it from being loaded")
        return notes

    def evidence(self) -> list[Inquiry]:
        """What launchd knows of the job, and what its domain disables."""
        return [
            Inquiry("service.state", "state.txt", "launchd.job", self.who.target, "launchctl"),
            Inquiry("service.disabled", "disabled.txt", "launchd.disabled", self.who.domain),
        ]

    def journal(self) -> str | None:
        """None: a job's words go to the files that its property list names."""
        return None
