"""The error family: every error says what happened, where, and what to do about it.

`OpsError.exit_code` is what the CLIs exit with: 1 the work failed, 2 the request was wrong, 3 it could not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opsexec.executor import RunOutput


class OpsError(Exception):
    """Base of every error this project raises on purpose.

    `message` is one sentence saying what happened; `host` says where; `hint` says what to do.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, host: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.host}: {self.message}" if self.host else self.message


class UsageError(OpsError):
    """The request itself is wrong; nothing was attempted."""

    code = "usage"
    exit_code = 2


class BadStep(UsageError):
    """A Step whose fields contradict each other or can't be made unambiguous."""

    code = "bad_step"


class BadCapability(UsageError):
    """A capability string that is not in the grammar."""

    code = "bad_capability"


class BadInventory(UsageError):
    """An inventory file that can't be read as one."""

    code = "bad_inventory"


class BadRunbook(UsageError):
    """A runbook file that can't be read as one; `placed`: its message starts with file:line."""

    code = "bad_runbook"

    def __init__(self, message: str, *, host: str | None = None, hint: str | None = None, placed: bool = False) -> None:
        super().__init__(message, host=host, hint=hint)
        self.placed = placed


class CapabilityDenied(OpsError):
    """No grant admits the Step. `needed` and `held` are capability strings; `layer` is who said no."""

    code = "denied"
    exit_code = 3

    def __init__(
        self,
        needed: str,
        held: Sequence[str],
        *,
        host: str | None = None,
        layer: str = "caller",
        reason: str | None = None,
    ) -> None:
        shown = ", ".join(map(_brief, held[:8])) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
        message = f"denied by the {layer}: needs {_brief(needed)}, held: {shown or 'nothing'}"
        if reason:
            message += f" ({reason})"
        super().__init__(message, host=host, hint=_how_to_grant(_brief(needed)))
        self.needed = needed
        self.held = tuple(held)
        self.layer = layer
        self.reason = reason


def _brief(text: str) -> str:
    return text if len(text) <= 1000 else f"{text[:1000]}... ({len(text)} characters)"


def _how_to_grant(needed: str) -> str:
    """Return what to do about a denial; a program's bare name is not a capability until its path is known."""
    verb, _, resource = needed.partition(":")
    if needed == "a grant":
        return "who runs that host gives one: [[grants]] in its agent's configuration, docs/agent.md"
    if verb in ("exec", "tty") and not resource.startswith("/"):
        return f"grant it by the program's path on the host, like {verb}:/usr/bin/{resource}"
    if verb == "run_as":
        return f"add {resource} to the grant's run_as if this is wanted"
    return f'grant "{needed}" if this is wanted'


class LimitExceeded(OpsError):
    """A limit of the CapabilitySet (time, output, user) was crossed."""

    code = "limit"


class StepFailed(OpsError):
    """The Step ran and failed; `output` holds what it said."""

    code = "step_failed"

    def __init__(
        self, message: str, *, output: RunOutput | None = None, host: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, host=host, hint=hint)
        self.output = output


class ProgramNotFound(StepFailed):
    """None of the places where the program could be has it."""

    code = "program_not_found"


class PathNotFound(StepFailed):
    """What the Step's path names isn't there, or the directory above it isn't."""

    code = "not_found"


class MadeDifferently(StepFailed):
    """What has the name (a container, a network) was made from something else than the Step says."""

    code = "made_differently"


class AddressesTaken(StepFailed):
    """Somebody else has the addresses that a network asks for."""

    code = "addresses_taken"


class StepTimeout(StepFailed):
    """The Step's deadline passed; its process tree was ended."""

    code = "timeout"


class PrivilegeDenied(OpsError):
    """The host would not let this login become the other user (sudo asks, or refuses)."""

    code = "privilege"
    exit_code = 3


class HostUnreachable(OpsError):
    """No session with the host could be opened (name, network, login, refused key)."""

    code = "unreachable"
    exit_code = 3


class HostKeyRejected(HostUnreachable):
    """The host's key is not the one that is known; `expected` and `got` are SHA256 fingerprints."""

    code = "host_key"

    def __init__(
        self, message: str, *, expected: str | None, got: str | None, host: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, host=host, hint=hint)
        self.expected = expected
        self.got = got


class ConnectionLost(HostUnreachable):
    """The session broke while a Step was under way: whether it finished is unknown."""

    code = "connection_lost"


class HostUnsuitable(OpsError):
    """The host lacks what the Step needs (no python3, no systemctl, no shell)."""

    code = "unsuitable"
    exit_code = 3


class ProtocolError(OpsError):
    """The other side sent something that is not in the protocol."""

    code = "protocol"
    exit_code = 3


class AuditUnavailable(OpsError):
    """The audit can't be written: no audit, no run."""

    code = "audit"
    exit_code = 3


class RecordingFailed(OpsError):
    """A terminal's recording can't be written: what can't be recorded isn't gone on with."""

    code = "recording"
    exit_code = 3


class ConsentDenied(OpsError):
    """The person on the host was asked, and said no or nothing."""

    code = "consent"
    exit_code = 3
