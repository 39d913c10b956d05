"""`AuditRead`: reading the audit that an ops-agent keeps of its host."""

from __future__ import annotations

from typing import Literal

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.steps.base import Step

MAX_LINES = 10_000


class AuditRead(Step, frozen=True, tag="audit_read"):
    """Read the host's audit. `what`: "verify" (the answer is `RunOutput.value`, with the signed heads), or records as
    lines of JSON on stdout: "tail" (the last `lines`) or "show" (those of a run whose id begins so, at most `lines`).
    """

    family = "agent"
    mutates = False

    what: Literal["verify", "tail", "show"]
    lines: int = 10
    run: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.lines <= MAX_LINES:
            raise BadStep(f"lines is not 1 to {MAX_LINES}")
        if (self.what == "show") != (self.run is not None) or self.run == "":
            raise BadStep("a run goes with `show`, and with nothing else")
        if self.run_as is not None:
            raise BadStep("the agent reads its audit as itself: no run_as")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("audit.read", self.what),)
