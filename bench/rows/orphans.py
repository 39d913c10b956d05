"""What is left on the host when the caller is interrupted: every peer, every event, and opsexec."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.interruption import EVENTS, Aftermath, Holding, interrupt
from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job, opsexec_can_run
from bench.verdict import Claim, Row
from tests.parts.delay_proxy import DelayProxy
from tests.parts.unix_user import unix_user

NAME = "orphans"
TITLE = "no orphans: what is left on the host after each event (plain, background and setsid child)"
_serial = itertools.count(1)


@dataclass(frozen=True)
class Contender:
    name: str
    script: str
    extra: dict[str, Any]
    as_user: bool = False

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)


CONTENDERS = (
    Contender(f"{OURS}, ssh as root", "with_opsexec.py", {}),
    Contender(f"{OURS}, ssh as a user", "with_opsexec.py", {}, as_user=True),
    Contender(f"{OURS}, local", "with_opsexec.py", {"local": True}),
    Contender("asyncssh", "with_asyncssh.py", {}),
    Contender("ssh", "with_openssh.py", {}),
    Contender("ControlMaster", "with_openssh.py", {"control_master": True}),
    Contender("fabric", "with_fabric.py", {}),
    Contender("pyinfra", "with_pyinfra.py", {}),
    Contender("ansible", "with_ansible.py", {}),
    Contender("ansible+mitogen", "with_ansible.py", {"mitogen": True}),
)


def run(rig: Rig) -> Row:
    """Processes left a second after the event (three for SIGKILL and a cut connection), of three."""
    row = Row(NAME, TITLE)
    table = [["", *EVENTS]]
    for contender in CONTENDERS:
        if contender.ours and not opsexec_can_run():
            continue
        if contender.as_user and os.geteuid() != 0:
            row.notes.append(f"{contender.name}: not run, making a user needs root")
            continue
        line = [contender.name]
        left: list[float | None] = []
        for event in EVENTS:
            rig.say(f"{contender.name}: {event}")
            if event == "cut" and contender.extra.get("local"):
                line.append("-")
                continue
            result = one_cell(rig, contender, event)
            line.append(result.words())
            left.append(None if result.failed else float(result.left))
            if result.failed:
                row.notes.append(f"{contender.name}, {event}: {result.failed}")
        if contender.ours:
            row.claims.append(Claim(f"{contender.name}: left after any event", most(left), None, 0, absolute=True))
        table.append(line)
    row.tables.append(table)
    row.notes.append(
        "deadline and cancel mean each tool's own way: timeout= and task.cancel() where it has them, "
        "else timeout(1) (ssh) or SIGTERM (pyinfra, ansible)"
    )
    return row


def most(left: list[float | None]) -> float | None:
    """The largest number; None where one of them could not be had, since that might have been larger."""
    found = [each for each in left if each is not None]
    return max(found) if len(found) == len(left) else None


def one_cell(rig: Rig, contender: Contender, event: str) -> Aftermath:
    """One contender, one event, on a host of its own behind a proxy that can be cut."""
    with (
        login(contender) as user,
        rig.host() as server,
        DelayProxy((server.listen[0], server.port)) as proxy,
    ):
        through = server.endpoint_behind(proxy.address, proxy.port, user=user)
        job = {"work": "hold", "hosts": [as_job(through)], "event": event, **contender.extra}
        entrant = Entrant(contender.name, contender.script, job, python="ours" if contender.ours else "peers")
        holding = Holding(entrant, job, event, f"{os.getpid()}{next(_serial):04d}", proxy)
        return interrupt(holding, patient=not rig.quick)


@contextlib.contextmanager
def login(contender: Contender) -> Iterator[str | None]:
    """The user to log in as: None is the one that runs the bench."""
    if contender.as_user:
        with unix_user() as name:
            yield name
    else:
        yield None
