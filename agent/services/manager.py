"""One model of a service manager with two backends: what a service command asks of it, and the acts it answers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from agent.services.acts import Act

if TYPE_CHECKING:
    from agent.services.artifact import Places
    from agent.services.evidence import Form
    from agent.services.look import Look


UNTESTED = "untested on a mac: what is asked of launchctl was tried against a stand-in alone"
"""What must be said before launchd is told anything."""

STOP_S = 60.0
"""Seconds a stop may take in a quarantine before what is left is killed."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What release puts back. `path`: None when the definition stands where nothing needs the place.

    `domain`: launchd's; `loaded`: whether launchd had the job.
    """

    unit: str
    user: bool
    path: str | None = None
    target: str | None = None
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    sha256: str | None = None
    unit_file_state: str = ""
    active_state: str = ""
    domain: str = ""
    loaded: bool = False

    @property
    def was_enabled(self) -> bool:
        """Whether it was to start by itself."""
        return self.unit_file_state == "enabled"


class Inquiry(NamedTuple):
    """A question to the manager that a bundle keeps the answer of. `file`: its name there."""

    id: str
    file: str
    question: str
    subject: str
    form: Form = "text"


class Manager(Protocol):
    """A service as its manager has it. States are in `systemctl show`'s terms, whoever answers."""

    look: Look
    places: Places

    @property
    def unit(self) -> str:
        """What the manager calls it."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said before anything is changed through it."""

    @property
    def definition(self) -> str:
        """The place of the definition that can be put there and taken away."""

    @property
    def shows(self) -> tuple[str, ...]:
        """The command that shows its state."""

    async def state(self) -> dict[str, str]:
        """Return the service's properties; raises Unreadable."""

    def protected(self) -> str | None:
        """Return why a quarantine is refused."""

    def start(self, state: dict[str, str], *, again: bool) -> list[Act]:
        """Return the acts that start it, or end it and start it `again`."""

    def stop(self, *, timeout_s: float | None = None) -> list[Act]:
        """Return the acts that end it."""

    def kill(self) -> Act:
        """Return the act that ends what a stop left."""

    def stopped(self, state: dict[str, str]) -> bool:
        """Whether it is ended, as a stop does."""

    def enable(self) -> list[Act]:
        """Return the acts that have it started at boot or login."""

    def withhold(self) -> list[Act]:
        """Return the acts that come before a definition that isn't to be enabled is written."""

    def reload(self, why: str) -> list[Act]:
        """Return the acts that make the manager read its definitions anew."""

    def withdraw(self) -> list[Act]:
        """Return the acts that end and disable what is to be uninstalled."""

    def contain(self, leftovers: list[Act], moved: list[Act]) -> list[Act]:
        """Return the acts of a quarantine in the order the manager accepts, those given among them."""

    def contained(self, state: dict[str, str]) -> bool:
        """Whether nothing of it runs, or can be started."""

    def note(self, state: dict[str, str]) -> Held:
        """Return what a quarantine writes down of it, but for the definition."""

    def restorable(self, path: str | None) -> bool:
        """Whether a definition of this service may be put back there."""

    def put_back(self, held: Held, restore: list[Act], *, start: bool) -> list[Act]:
        """Return the acts of a release, `restore` (the definition's) among them."""

    def leftover_note(self, state: dict[str, str]) -> list[str]:
        """Return what a person should know of what may live on."""

    def evidence(self) -> list[Inquiry]:
        """Return what a bundle asks it of the service."""

    def journal(self) -> str | None:
        """Return the question for what the service said; None where the manager keeps no log."""
