"""What every backend is: where a bottle is kept, phases of Steps, and the protocol that a launch is written against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bottle.authority import Authority
from bottle.credentials import Credentials
from bottle.plan import BottlePlan
from bottle.runtime import Runtime
from opsexec.errors import OpsError
from opsexec.steps import ReadFile, Step

UID = 1000
"""Who the agent is, inside."""


@dataclass(frozen=True)
class Place:
    """Where one bottle is kept on its host. `resolve`: host -> (address, port) that egress dials instead of asking DNS.

    `trust`: PEM of further authorities that egress trusts upstream. `plain`: (uid, gid) of a launcher that isn't root.
    `attempt`: counts the tries to find addresses that nobody has; `again`: something of this bottle's may be there
    already. `missing`: the directories that lack above it, the topmost first.
    """

    state: str
    runtime: Runtime
    resolve: Mapping[str, tuple[str, int]]
    trust: str = ""
    plain: tuple[int, int] | None = None
    attempt: int = 0
    again: bool = False
    missing: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The bottle's."""
        return self.state.rpartition("/")[2]

    def at(self, *parts: str) -> str:
        """Return a path below the bottle's own directory."""
        return "/".join([self.state, *parts])


@dataclass(frozen=True)
class Phase:
    """Some Steps that belong together, in order.

    `teardown`: how they are undone when the agent never ran. `ending`: what ends with the bottle, however it ends.
    """

    name: str
    steps: tuple[Step, ...]
    teardown: tuple[Step, ...] = ()
    ending: tuple[Step, ...] = ()


class Backend(Protocol):
    """A plan as Steps, for one isolation engine. A module of this package is one; nothing in it does any I/O."""

    def lay_out(self, place: Place) -> Phase:
        """Return the bottle's directories."""
        ...

    def surroundings(self, plan: BottlePlan, place: Place) -> list[Phase]:
        """Return what must stand before the bundle and the agent: images, networks. May be made side by side."""
        ...

    def elsewhere(self, error: OpsError) -> bool:
        """True for an error of those that another `attempt` may not meet."""
        ...

    def host_reads(self) -> tuple[ReadFile, ...]:
        """Return what is read of the host for the bundle."""
        ...

    def bundle_files(self, place: Place, read: Mapping[str, bytes]) -> Phase:
        """Return the bundle's own copies of those, by path."""
        ...

    def route_table(self, plan: BottlePlan, place: Place) -> Phase:
        """Return the rendered table, which a reload reads again."""
        ...

    def daemons(self, plan: BottlePlan, place: Place) -> set[str]:
        """Return the names of the daemons that say when they are ready."""
        ...

    def bundle_run(self, plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> Step:
        """Return the bundle; it lasts as long as its stdin is held open."""
        ...

    def provision(self, plan: BottlePlan, place: Place, authority: Authority) -> list[Phase]:
        """Return how the guest is filled, in the order that matters."""
        ...

    def guest_run(self, plan: BottlePlan, place: Place) -> Step | None:
        """Return what the agent's programs run in, which lasts as long as its stdin is held open.

        None where each program brings its own.
        """
        ...

    def home_watch(self, plan: BottlePlan, place: Place) -> Step | None:
        """Return what ends when the agent's home is over its bounds; None where its own place sees to that."""
        ...

    def agent_run(
        self, plan: BottlePlan, place: Place, secrets: Credentials, argv: tuple[str, ...] | None = None
    ) -> Step:
        """Return the agent; `argv`: another program in the same place, like the provider's checks."""
        ...


def all_steps(
    backend: Backend, plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority
) -> list[tuple[str, Step]]:
    """Return every Step of a launch with its phase's name: what `--dry-run` prints and `capabilities` adds up."""
    found: list[tuple[str, Step]] = []
    phases = [backend.lay_out(place), *backend.surroundings(plan, place)]
    more = [Phase("host", backend.host_reads()), backend.bundle_files(place, {}), backend.route_table(plan, place)]
    for phase in (*phases, *more, *backend.provision(plan, place, authority)):
        found += [(phase.name, step) for step in phase.steps]
    found.append(("bundle", backend.bundle_run(plan, place, secrets, authority)))
    guest = backend.guest_run(plan, place)
    if guest is not None:
        found.append(("guest", guest))
    watch = backend.home_watch(plan, place)
    if watch is not None:
        found.append(("watch", watch))
    for words in (*plan.provider.before, *plan.provider.verify):
        found.append(("provider", backend.agent_run(plan, place, secrets, words)))
    found.append(("agent", backend.agent_run(plan, place, secrets)))
    found += [("teardown", step) for phase in phases for step in (*phase.teardown, *phase.ending)]
    return found
