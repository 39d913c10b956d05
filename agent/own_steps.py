"""Steps that only an agent can do: those on its schedules, and those that read its audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.asker import LAYER, Asker
from agent.audit_reading import read_audit
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.limits import within
from opsexec.host_executor import HostExecutor
from opsexec.steps.audit import AuditRead
from opsexec.steps.doctor import Survey
from opsexec.steps.events import Events
from opsexec.steps.files import ReadFile
from opsexec.steps.trees import ListTree

if TYPE_CHECKING:
    from agent.desk import Desk
    from agent.marked_host import MarkedHost
    from opsexec.capability import CapabilitySet
    from opsexec.handlers.registry import Handler
    from opsexec.steps.base import Step

READS = (ReadFile, ListTree, Survey)
"""Steps that hold much in memory, or digest many files: many at once would keep everybody else waiting."""


class AgentExecutor(HostExecutor):
    """Does one caller's step on this machine, or in the agent itself."""

    def __init__(
        self,
        desk: Desk,
        asker: Asker,
        held: CapabilitySet,
        attenuation: CapabilitySet | None,
        host: MarkedHost,
        run: str,
    ) -> None:
        who = {"principal": asker.principal, "listener": asker.listener}
        super().__init__(host, held, desk.audit, **who, layer=LAYER, run=run)
        self._desk = desk
        self._asker = asker
        self._attenuation = attenuation

    def _handler(self, step: Step) -> Handler:
        if isinstance(step, READS):
            return self._read
        return self._own if step.family == "agent" else super()._handler(step)

    async def _read(self, step: Step, context: Context) -> Outcome:
        """Read a file or a tree, in a thread that takes its turns with the loop: few at once for each principal."""
        places = self._desk.reading[self._principal]
        await within("waiting for one's other reads", places.acquire(), context)
        try:
            return await super()._handler(step)(step, context)
        finally:
            places.release()

    async def _own(self, step: Step, context: Context) -> Outcome:
        if isinstance(step, AuditRead):
            return await read_audit(self._desk, step, context)
        if isinstance(step, Events):
            from agent.events.follow import follow

            return await follow(self._desk.events, step, context, self._asker.principal)
        from agent.schedule.manage import manage

        return await manage(self._desk, self._asker, self._attenuation, step, context)
