"""How a runbook is run.

The choices of the caller, and the parts that can be replaced (approval, connection).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opsexec.errors import OpsError, UsageError
from opsexec.secret_source import Ask

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.executor import Executor
    from opsexec.inventory import InventoryHost

DEFAULT_FORKS = 20
CLEANUP_TIMEOUT_S = 60.0
"""How long the `always` steps of a host may take once the run was cancelled."""


class ApprovalMissing(OpsError):
    """A tier needs a person's approval, and nobody can be asked."""

    code = "approval"
    exit_code = 3


@dataclass(frozen=True)
class Approval:
    """What is to be approved: a tier, the hosts it would touch, and how the run stands so far."""

    run: str
    tier: str
    hosts: Sequence[str]
    totals: Mapping[str, int]


Approver = Callable[[Approval], Awaitable[bool]]
"""Answers whether a tier may start; raises ApprovalMissing when nobody can be asked."""


class Connect(Protocol):
    """Opens an executor for a host under a set; injected, so that a runbook knows no transport."""

    def __call__(self, host: InventoryHost, capabilities: CapabilitySet) -> AbstractAsyncContextManager[Executor]: ...


@dataclass(frozen=True)
class RunOptions:
    """The choices for one run.

    `forks`: hosts at once. `vars`: `--var`, always text. `tags`: only steps with one of them (`always`
    steps run in any case). `yes`: approve every tier. `resume`: the id of the run to go on with.
    `approver`: asked before a gated tier; None = the person at the terminal. `ask`: reads a secret; None =
    the terminal. `state_dir`: where journals stand; None = the usual place.
    """

    limit: str | None = None
    check: bool = False
    diff: bool = False
    forks: int = DEFAULT_FORKS
    vars: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    yes: bool = False
    resume: str | None = None
    approver: Approver | None = None
    ask: Ask | None = None
    state_dir: str | None = None

    def __post_init__(self) -> None:
        from opsexec.runbook.model import check_variable

        if self.forks < 1:
            raise UsageError(f"forks is {self.forks}", hint="at least one host at a time")
        for name in self.vars:
            check_variable(name)
        if self.check and self.resume is not None:
            raise UsageError("a resumed run can't be a check", hint="check without --resume; it changes nothing")


async def ask_at_terminal(approval: Approval) -> bool:
    """Ask the person at the terminal; raises ApprovalMissing when standard input is none."""
    import sys

    import anyio.to_thread

    if not sys.stdin.isatty():
        raise ApprovalMissing(
            f"tier {approval.tier} needs approval, and standard input is no terminal",
            hint=f"look at the results, then: --resume {approval.run} --yes",
        )
    hosts = ", ".join(approval.hosts)
    question = f"Go on with tier {approval.tier} ({hosts})? [y/N] "
    answer = await anyio.to_thread.run_sync(input, question, abandon_on_cancel=True)
    return answer.strip().lower() in ("y", "yes")
