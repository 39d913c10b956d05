"""What a service command did, or would do: for people as lines, for programs as JSON."""

from __future__ import annotations

import json
import shlex
from typing import Any

import msgspec

from agent.services.acts import Act, Done, words
from agent.services.finding import Finding
from opsexec.handlers.diffs import shown


class Outcome(msgspec.Struct, kw_only=True):
    """`ok`: it is as was asked for; `plan`: what is done, in order; `done`: what was; `notes`: sentences for people."""

    ok: bool
    plan: list[Act] = []
    done: list[Done] = []
    findings: list[Finding] = []
    notes: list[str] = []
    bundle: str | None = None
    value: Any = None

    def as_json(self, host: str, command: str, name: str, executed: bool) -> str:
        """Return one JSON object."""
        plan = [{"id": each.id, "argv": words(each.step), "why": each.why} for each in self.plan]
        told = {
            "host": host, "command": command, "name": name, "executed": executed, "ok": self.ok, "plan": plan,
            "done": msgspec.to_builtins(self.done), "findings": msgspec.to_builtins(self.findings),
            "notes": self.notes, "bundle": self.bundle, "value": self.value,
        }  # fmt: skip
        return json.dumps(told) + "\n"

    def human(self, *, executed: bool) -> str:
        """Return lines for people: terminal escapes of a host's words are shown, not sent."""
        lines = [f"{each.verdict.upper():7} {each.id}: {each.summary}" for each in self.findings
                 if each.verdict in ("fail", "warn") or each.blocks_preflight]  # fmt: skip
        if not executed:
            lines += [f"  would {each.id}: {shlex.join(words(each.step))}" + (f"  ({each.why})" if each.why else "")
                      for each in self.plan]  # fmt: skip
        for each in self.done:
            if not each.id.startswith("capture."):
                lines.append(f"  {'ok  ' if each.rc == 0 else 'FAIL'} {each.id}: {each.error or shlex.join(each.argv)}")
        lines += self.notes
        if self.bundle:
            lines.append(f"bundle: {self.bundle}")
        if self.plan and not executed:
            lines.append("nothing was changed: add --execute")
        return "".join(shown(line) + "\n" for line in lines)
