"""What a runbook pushes must be there before the first host is contacted, where no step can have made it by then."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from opsexec.errors import BadRunbook
from opsexec.inventory import InventoryHost
from opsexec.runbook.model import Runbook, RunbookStep, Template
from opsexec.runbook.this_machine import is_here, is_plainly_here
from opsexec.steps import Pull, Push, Step


class Sources:
    """The sources of pushes; not looked at where the run pulls, too, acts on this machine, or is resumed.

    What a step does on this machine may be what a later one pushes.
    """

    def __init__(self, runbook: Runbook, hosts: Iterable[InventoryHost], tags: Sequence[str], *, resumed: bool) -> None:
        self._tags = frozenset(tags)
        kinds = [a.kind if isinstance(a := step.action, Template) else type(a) for _, step in runbook.all_steps()]
        self._hosts = tuple(hosts)
        self._looks = not (resumed or Pull in kinds or any(map(is_plainly_here, self._hosts)))

    def require(self, step: RunbookStep, made: Step) -> None:
        """Raise BadRunbook for a push of what isn't there; a step that may fail, or may not come to be done, may."""
        if not self._looks or not isinstance(made, Push) or step.allow_failure:
            return
        if self._tags and not self._tags & {*step.tags}:
            return
        try:
            os.lstat(made.src)
        except OSError as error:
            self._looks = not any(map(is_here, self._hosts))
            if not self._looks:
                return
            text = f"can't read {made.src} on this machine: {os.strerror(error.errno or 0)}"
            raise BadRunbook(text, hint="src is a path of the machine that pushes") from error
