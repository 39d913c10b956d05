"""What a check says: a ruling with its evidence and its fix, and the finding it becomes under a check's id."""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec

Verdict = Literal["pass", "info", "warn", "fail", "skip", "unknown"]
Severity = Literal["low", "medium", "high"]

WEIGHT: dict[str, int] = {"pass": 0, "skip": 0, "info": 1, "unknown": 2, "warn": 3, "fail": 4}
"""How bad a verdict is, for `--fail-on`. What can't be read outweighs an info, and never counts as good."""

EXCERPT = 600
"""Characters of a program's words that evidence keeps."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was read. `cmd`: a program and its words, `rc`: its exit status; `path`: a file there, `line` 1-based."""

    cmd: str | None = None
    rc: int | None = None
    excerpt: str = ""
    path: str | None = None
    line: int | None = None


class Fix(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to do. `argv`: the command that does it, empty when it takes a person; `safe`: it destroys nothing.

    `shows`: the command only tells more, and mends nothing.
    """

    text: str
    argv: tuple[str, ...] = ()
    safe: bool = False
    shows: bool = False

    @property
    def by_itself(self) -> bool:
        """True for what `repair` may do without a person."""
        return bool(self.argv) and self.safe and not self.shows

    def __str__(self) -> str:
        return f"{self.text}: `{shlex.join(self.argv)}`" if self.argv else self.text


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What a check decided. `because`: the id of the root cause, of a skip."""

    verdict: Verdict
    summary: str
    evidence: tuple[Evidence, ...] = ()
    fix: Fix | None = None
    because: str | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ruling under the id of its check, about one subject (`host`, `podman`, `service:web`)."""

    id: str
    subject: str
    verdict: Verdict
    severity: Severity
    summary: str
    because: str | None = None
    evidence: tuple[Evidence, ...] = ()
    fix: Fix | None = None
    blocks_preflight: bool = False


def passed(summary: str, *evidence: Evidence) -> Ruling:
    """It is as it should be."""
    return Ruling(verdict="pass", summary=summary, evidence=evidence)


def noted(summary: str, *evidence: Evidence, fix: Fix | None = None) -> Ruling:
    """It is worth knowing."""
    return Ruling(verdict="info", summary=summary, evidence=evidence, fix=fix)


def warned(summary: str, *evidence: Evidence, fix: Fix | None = None) -> Ruling:
    """It will hurt some day."""
    return Ruling(verdict="warn", summary=summary, evidence=evidence, fix=fix)


def failed(summary: str, *evidence: Evidence, fix: Fix | None = None) -> Ruling:
    """It is wrong."""
    return Ruling(verdict="fail", summary=summary, evidence=evidence, fix=fix)


def skipped(reason: str, because: str | None = None) -> Ruling:
    """It doesn't apply, or another check has said all there is to say."""
    return Ruling(verdict="skip", summary=reason, because=because)


def unknown(reason: str, *evidence: Evidence, fix: Fix | None = None) -> Ruling:
    """It could not be read, so nobody can say."""
    return Ruling(verdict="unknown", summary=reason, evidence=evidence, fix=fix)
