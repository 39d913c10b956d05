"""Asking and telling the host's service manager, through systemctl."""

from __future__ import annotations

from typing import Any

from opsexec.capability import program_candidates
from opsexec.errors import HostUnsuitable, ProgramNotFound, StepFailed
from opsexec.executor import RunOutput
from opsexec.handlers.context import Context
from opsexec.handlers.far_answers import decoded
from opsexec.handlers.limits import call
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder

NO_MANAGER = ("not been booted with systemd", "Failed to connect to")
"""What systemctl says, in the C locale, where no service manager answers (systemd 239 to 256)."""

NOT_ALLOWED = ("Access denied", "authentication required", "Permission denied")

PROPERTIES = {
    "LoadState": "load_state",
    "ActiveState": "active_state",
    "SubState": "sub_state",
    "UnitFileState": "unit_file_state",
    "Result": "result",
    "MainPID": "main_pid",
    "NRestarts": "restarts",
    "ExecMainStatus": "exit_status",
    "FragmentPath": "unit_file",
    "Description": "description",
}
"""What is asked of a unit, and what it is called in the answer; org.freedesktop.systemd1(5) explains each."""

NUMBERS = frozenset({"MainPID", "NRestarts", "ExecMainStatus"})


class Systemctl:
    """systemctl on one host as one user. `user`: that user's own service manager, not the system's."""

    def __init__(self, context: Context, run_as: str | None, *, user: bool = False) -> None:
        self._context = context
        self._run_as = run_as
        self._user = user
        self._env: dict[str, str] | None = None

    async def run(self, *words: str) -> RunOutput:
        """Run `systemctl words...`. The grant is service.* or observe, so the program needs no exec grant.

        Raises HostUnsuitable where there is no systemctl, or no manager that answers it.
        """
        context = self._context
        programs = program_candidates("systemctl")
        scope = ("--user",) if self._user else ()
        spec = ProcessSpec(
            run=context.run,
            programs=programs,
            admitted=programs,
            argv=("systemctl", *scope, "--no-pager", "--no-ask-password", *words),
            env=await self._environment(),
            run_as=self._run_as,
        )
        recorder = Recorder()
        try:
            ended = await context.host.run_process(spec, recorder)
        except ProgramNotFound as error:
            hint = "services need systemd; start this one with Exec"
            raise HostUnsuitable("there is no systemctl", host=context.host.name, hint=hint) from error
        output = RunOutput(
            run=context.run,
            host=context.host.name,
            exit_code=ended.exit_code,
            signal=ended.signal,
            stdout=recorder.tail(0),
            stderr=recorder.tail(1),
            stdout_bytes=recorder.counts[0],
            stderr_bytes=recorder.counts[1],
            digest=recorder.digest,
        )
        if not output.ok and any(text in _said(output) for text in NO_MANAGER):
            hint = "log that user in, or enable lingering" if self._user else "services need systemd as PID 1"
            raise HostUnsuitable(f"no service manager answers: {_last(output)}", host=output.host, hint=hint)
        return output

    async def _environment(self) -> dict[str, str]:
        """Return what systemctl's words depend on, and where a user's manager listens."""
        if self._env is None:
            self._env = {"LC_ALL": "C", "SYSTEMD_COLORS": "0"}
            if self._user:
                (facts,) = await call("facts", [b"user"], self._run_as, self._context, items=1)
                user = decoded(facts, self._context).get("user")
                runtime = user.get("runtime_dir") if isinstance(user, dict) else None
                if isinstance(runtime, str):
                    self._env["XDG_RUNTIME_DIR"] = runtime
        return self._env

    async def show(self, unit: str) -> dict[str, Any]:
        """Return a unit's state as JSON data, `load_state` "not-found" where there is no such unit."""
        output = await self.run("show", "--property=" + ",".join(PROPERTIES), "--", unit)
        self.require_ok(output, f"read service {unit}")
        return parse_show(output.text, unit)

    def require_ok(self, output: RunOutput, doing: str) -> None:
        """Raise StepFailed, which holds what systemctl said, unless it ended well."""
        if output.ok:
            return
        how = f"ended by {output.signal}" if output.signal else f"exit status {output.exit_code}"
        hint = "`journalctl -u` on the host says why"
        if any(text in _said(output) for text in NOT_ALLOWED):
            hint = "use run_as with root, or let this user manage units (polkit)"
        text = f"can't {doing}: {_last(output) or how}"
        raise StepFailed(text, output=output, host=output.host, hint=hint)


def _said(output: RunOutput) -> str:
    return output.stderr.decode("utf-8", "replace")


def _last(output: RunOutput) -> str:
    return _said(output).strip().rpartition("\n")[2][:200]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def parse_show(text: str, unit: str) -> dict[str, Any]:
    """Return the properties `systemctl show` printed; a number it didn't print is null, a text empty."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    state: dict[str, Any] = {"name": unit}
    for name, key in PROPERTIES.items():
        value = found.get(name, "")
        state[key] = _number(value) if name in NUMBERS else value
    state["load_state"] = state["load_state"] or "not-found"
    return state
