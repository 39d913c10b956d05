"""Asking and telling launchd through launchctl(1), whose words are no interface. Never run on a mac: untested there."""

from __future__ import annotations

import re
from typing import Any

from opsexec.capability import program_candidates
from opsexec.errors import HostUnsuitable, ProgramNotFound, StepFailed
from opsexec.executor import RunOutput
from opsexec.handlers.context import Context
from opsexec.hosts.port import ProcessSpec
from opsexec.recorder import Recorder
from opsexec.sinks import CollectSink

NO_SUCH_PROCESS, IO_ERROR, IN_PROGRESS, UNDER_WAY = 3, 5, 36, 37
NO_DOMAIN, NOT_FOUND, DISABLED, NOT_SUPPORTED = 112, 113, 119, 125
"""Exit statuses of launchctl(1); `launchctl error N` on a mac says what each means."""

REASONS = {
    IO_ERROR: "an input or output error: mostly the property list's owner or mode, or it is loaded already",
    9: "bad request: the domain doesn't take it from this login",
    IN_PROGRESS: "it is being ended",
    UNDER_WAY: "an operation on it is under way",
    NO_DOMAIN: "could not find the domain",
    NOT_FOUND: "could not find it",
    DISABLED: "the service is disabled",
    122: "the property list's owner or mode is not as launchd wants it",
    NOT_SUPPORTED: "the domain doesn't support that",
    150: "the service is denied by system policy",
}

LOOK_S, CHANGE_S = 10.0, 120.0
"""Seconds until launchctl, which hangs where launchd does, gives no answer: to a look, and to a change."""

END_OF_BLOCK = "\t}"
"""How `launchctl print` ends a block of a job's."""
MOST_BYTES = 4 << 20
"""Of what launchctl says. A job's arguments and environment, which it makes itself, are 1 MiB at most (ARG_MAX)."""

RUNNING = "running"
COMING = ("spawn scheduled", "spawning")
"""States of a job that launchd is about to start."""


def parse_print(text: str) -> dict[str, str] | None:
    """Return the keys of the outermost block alone, the first of each; None for a text that is no such block.

    A value in an inner block may be any text, also one that looks like the page's own, and none makes it unreadable: a
    block is over where a line is its end exactly, and the page where its text is.
    """
    first, *lines = text.rstrip().split("\n")
    if not first.endswith(" = {") or not lines or lines.pop() != "}":
        return None  # cut off, or something else
    found: dict[str, str] = {}
    inside = False
    for line in lines:
        if inside:
            inside = line != END_OF_BLOCK
        elif line[:1] == "\t" and line[1:2] not in ("\t", ""):
            key, equals, value = line[1:].partition(" = ")
            if equals and value == "{":
                inside = True
            elif equals:
                found.setdefault(key, value.strip())
    return found


def parse_disabled(text: str) -> dict[str, bool]:
    """Return the override database of `launchctl print-disabled`: label -> disabled; it has been written two ways."""
    words = {"true": True, "disabled": True, "false": False, "enabled": False}
    rows = re.findall(r'^\s*"(.+)" => (true|false|enabled|disabled)\s*$', text, re.MULTILINE)
    return {label: words[word] for label, word in rows}


class Launchctl:
    """launchctl on one host as one user."""

    def __init__(self, context: Context, run_as: str | None) -> None:
        self._context = context
        self._run_as = run_as

    async def run(self, *words: str) -> RunOutput:
        """Run `launchctl words...`. The grant is service.*, so the program needs no exec grant.

        Raises HostUnsuitable where there is no launchctl, StepTimeout where it gives no answer.
        """
        context = self._context
        programs = program_candidates("launchctl")
        spec = ProcessSpec(
            run=context.run, programs=programs, admitted=programs, argv=("launchctl", *words), env={"LC_ALL": "C"},
            run_as=self._run_as, timeout_s=LOOK_S if words[0].startswith("print") else CHANGE_S,
        )  # fmt: skip
        said = CollectSink()
        recorder = Recorder(said, limit_bytes=MOST_BYTES)
        try:
            ended = await context.host.run_process(spec, recorder)
        except ProgramNotFound as error:
            hint = "jobs of launchd are a mac's; on Linux a service is a unit (ServiceControl)"
            raise HostUnsuitable("there is no launchctl", host=context.host.name, hint=hint) from error
        await recorder.finish()
        return RunOutput(
            run=context.run, host=context.host.name, exit_code=ended.exit_code, signal=ended.signal,
            stdout=said.stdout, stderr=said.stderr, stdout_bytes=recorder.counts[0],
            stderr_bytes=recorder.counts[1], digest=recorder.digest,
        )  # fmt: skip

    async def job(self, domain: str, label: str) -> dict[str, Any]:
        """Return what launchd knows of a job as JSON data. `disabled`: None where its database says nothing of it.

        Raises StepFailed for an answer nobody knows, HostUnsuitable where there is no such domain.
        """
        printed = await self.run("print", f"{domain}/{label}")
        if printed.exit_code in (NO_DOMAIN, NOT_SUPPORTED):
            hint = "log that user in" if domain != "system" else None
            raise HostUnsuitable(f"there is no launchd domain {domain}", host=printed.host, hint=hint)
        keys: dict[str, str] | None = {}
        if printed.exit_code != NOT_FOUND:
            self.require_ok(printed, f"read {domain}/{label}")
            keys = parse_print(printed.text)
        database = await self.run("print-disabled", domain)
        self.require_ok(database, f"read what is disabled in {domain}")
        if keys is None or (printed.ok and "state" not in keys) or "{" not in database.text:
            raise StepFailed("launchctl answers in a format nobody knows", output=printed, host=printed.host)
        return {
            "target": f"{domain}/{label}",
            "loaded": printed.ok,
            "state": keys.get("state", ""),
            "pid": _number(keys.get("pid", "")),
            "runs": _number(keys.get("runs", "")),
            "path": keys.get("path", ""),
            "disabled": parse_disabled(database.text).get(label),
        }

    def require_ok(self, output: RunOutput, doing: str) -> None:
        """Raise StepFailed, with what the status means and what launchctl said, unless it ended well."""
        if output.ok:
            return
        code = output.exit_code
        how = f"ended by {output.signal}" if output.signal else f"status {code}"
        reason = REASONS.get(code, "") if code is not None else ""
        said = output.stderr.decode("utf-8", "replace").strip().partition("\n")[0][:200]
        text = f"can't {doing}: " + (": ".join(each for each in (how, reason or said) if each))
        hint = f"`launchctl error {code}` on the host says more" if code is not None else None
        if code in (1, 9, 150):
            hint = "use run_as with root, or the login whose domain it is"
        raise StepFailed(text, output=output, host=output.host, hint=hint)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
