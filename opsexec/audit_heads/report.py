"""A check of the audit as plain JSON data: what `--json` prints, and what an agent answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opsexec.audit import VerifyReport
    from opsexec.audit_heads.check import HeadsReport


def as_json(report: VerifyReport) -> dict[str, Any]:
    """Return what was found of a chain."""
    problem = report.problem
    return {
        "ok": report.ok,
        "log": str(report.path),
        "lines": report.lines,
        "files": [str(segment.file) for segment in report.segments],
        "first_seq": report.first_seq,
        "head": None if report.head is None else {"seq": report.head.seq, "hash": report.head.hash},
        "rotations": report.rotations,
        "repairs": report.repairs,
        "problem": None
        if problem is None
        else {"file": str(problem.file), "line": problem.line, "why": problem.why, "detail": problem.detail},
    }


def heads_json(report: HeadsReport) -> dict[str, Any]:
    """Return what was found of a chain and its signed heads; the newest is whole, so that it can be checked again."""
    problem, signed = report.problem, report.signed
    found = as_json(report.chain)
    found["ok"] = report.ok
    if problem is not None and report.chain.problem is None:
        place = {"file": str(problem.file), "line": problem.line, "why": problem.why, "detail": problem.detail}
        found["problem"] = place
    found["signed"] = None
    if signed is not None:
        found["signed"] = {
            "heads": report.heads,
            "seq": signed.said.seq,
            "ts": signed.said.ts,
            "host": signed.said.host,
            "unsigned_lines": report.unsigned,
            "statement": signed.statement,
            "signature": signed.signature,
        }
    return found
