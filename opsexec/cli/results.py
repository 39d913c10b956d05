"""What a command did on each host: the exit code it comes to, and the JSON object `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opsexec.cli.ending import FAILED, OK, hint_of, say, tell, worst
from opsexec.cli.json_text import json_text
from opsexec.errors import HostUnreachable, OpsError, StepFailed

if TYPE_CHECKING:
    from opsexec.executor import RunOutput

STATUSES = ("ok", "changed", "skipped", "failed", "unreachable")


class Result(NamedTuple):
    """One host's outcome: what the step returned, or the error it ended with."""

    host: str
    output: RunOutput | None
    error: OpsError | None = None

    @property
    def code(self) -> int:
        """The exit code this host alone would come to."""
        if self.error is not None:
            return self.error.exit_code
        return OK if self.output is not None and self.output.ok else FAILED

    @property
    def status(self) -> str:
        """One of STATUSES."""
        if isinstance(self.error, HostUnreachable):
            return "unreachable"
        if self.error is not None or self.output is None or not self.output.ok:
            return "failed"
        if self.output.skipped:
            return "skipped"
        return "changed" if self.output.changed else "ok"

    def tell(self) -> None:
        """Print on stderr what went otherwise than asked: an error, an exit status, a skipped step."""
        if self.error is not None:
            say(self.error)
        elif self.output is not None and not self.output.ok:
            tell(f"{self.host}: {how_it_ended(self.output)}")
        elif self.output is not None and self.output.skipped:
            tell(f"{self.host}: skipped: {self.output.skipped}")

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; output is its last 64 KiB as text, bytes that aren't UTF-8 as U+FFFD."""
        output = self.output
        if output is None and isinstance(self.error, StepFailed):
            output = self.error.output
        data: dict[str, Any] = {"status": self.status}
        if output is not None:
            data |= {
                "run": output.run,
                "exit_code": output.exit_code,
                "signal": output.signal,
                "changed": output.changed,
                "skipped": output.skipped,
                "duration_s": round(output.duration_s, 6),
                "stdout": output.stdout.decode("utf-8", "replace"),
                "stderr": output.stderr.decode("utf-8", "replace"),
                "stdout_bytes": output.stdout_bytes,
                "stderr_bytes": output.stderr_bytes,
                "truncated": output.truncated,
                "digest": output.digest,
                "diff": output.diff,
                "value": output.value,
            }
        data["error"] = None if self.error is None else error_json(self.error)
        return data


def error_json(error: OpsError) -> dict[str, Any]:
    """Return an error as plain JSON data."""
    return {"code": error.code, "message": error.message, "hint": hint_of(error)}


def how_it_ended(output: RunOutput) -> str:
    """Return how a program that failed ended, in words."""
    return f"ended by {output.signal}" if output.signal else f"exit status {output.exit_code}"


def conclude(results: list[Result], *, as_json: bool) -> int:
    """Print the object that --json asks for, and return the exit code of it all."""
    if as_json:
        totals = {status: sum(r.status == status for r in results) for status in STATUSES}
        print(json_text({"hosts": {r.host: r.as_json() for r in results}, "totals": totals}))
    return worst([result.code for result in results])
