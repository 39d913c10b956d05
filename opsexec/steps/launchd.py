"""Steps on the jobs of a mac's launchd, through launchctl(1)."""

from __future__ import annotations

import re
from typing import Literal

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.steps.base import Step
from opsexec.steps.launchd_target import is_target, resource_of

LaunchdAction = Literal["bootstrap", "bootout", "kickstart", "restart", "enable", "disable", "kill"]
VERBS: dict[LaunchdAction, str] = {
    "bootstrap": "service.control",
    "bootout": "service.control",
    "kickstart": "service.control",
    "restart": "service.control",
    "enable": "service.control",
    "disable": "service.control",
    "kill": "service.quarantine",
}
"""Action -> the verb that admits it."""

_AGENTS = re.compile(r"(?:/[^/]+)*/Library/LaunchAgents\Z")
DAEMONS, AGENTS = "/Library/LaunchDaemons", "/Library/LaunchAgents"


class LaunchdControl(Step, frozen=True, tag="launchd"):
    """Bring a job of launchd's into a state; what is so already is not changed.

    `target`: domain and label, like `system/org.example.web`, `gui/501/...`, `user/501/...`. bootstrap: load the job
    from its property list at `path`, which may start it. bootout: end and unload it. kickstart: start it. restart:
    end it and start it again, from the definition that is loaded. enable, disable: whether it may be loaded, now and
    after a reboot. kill: SIGKILL to its process. A login's property list stands in /Library/LaunchAgents or below the
    home of the domain's own user, which the host says when the step is done as that user.
    """

    family = "launchd"

    target: str
    action: LaunchdAction
    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_target(self.target):
            raise BadStep(f"{self.target[:80]!r} is no launchd service target", hint="like system/org.example.web")
        if (self.path is not None) != (self.action == "bootstrap"):
            raise BadStep("bootstrap takes the path of a property list, and nothing else does")
        if self.path is not None:
            directory, _, file = clean_path(self.path).rpartition("/")
            fits = directory == DAEMONS if self.domain == "system" else bool(_AGENTS.match(directory))
            if not fits or not file.endswith(".plist"):
                where = DAEMONS if self.domain == "system" else "a Library/LaunchAgents"
                raise BadStep(f"{self.path[:120]!r} is no place of a job of {self.domain}", hint=f"put it in {where}")

    @property
    def domain(self) -> str:
        """The domain that the job belongs to: system, gui/UID or user/UID."""
        return self.target.rpartition("/")[0]

    @property
    def label(self) -> str:
        """The job's label."""
        return self.target.rpartition("/")[2]

    def requires(self) -> tuple[Requirement, ...]:
        needed = Requirement(VERBS[self.action], resource_of(self.target))
        return (needed,) if self.path is None else (needed, Requirement("fs.read", clean_path(self.path)))
