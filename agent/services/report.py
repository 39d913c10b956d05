"""Findings as people and machines read them: text, JSON, JSON lines, SARIF 2.1.0."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agent.services.check import Check
from agent.services.finding import WEIGHT, Finding, Verdict
from opsexec.handlers.diffs import shown

FORMATS = ("human", "json", "ndjson", "sarif")
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MARKS: dict[Verdict, str] = {
    "pass": "ok",
    "info": "info",
    "warn": "WARN",
    "fail": "FAIL",
    "skip": "skip",
    "unknown": "????",
}
LEVELS = {"pass": "none", "info": "note", "warn": "warning", "fail": "error", "skip": "none", "unknown": "warning"}
KINDS = {"pass": "pass", "info": "informational", "skip": "notApplicable", "unknown": "open"}


def worst(findings: Iterable[Finding]) -> int:
    """Return the weight of the worst verdict; 0 for none."""
    return max((WEIGHT[each.verdict] for each in findings), default=0)


def plain(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON data."""
    found: dict[str, Any] = msgspec.to_builtins(finding)
    return found


def human(host: str, findings: Sequence[Finding], *, verbose: bool) -> str:
    """Return the text for people: what is wrong first said in place, and a line that counts at the end.

    Not `verbose`: findings that pass and skips are counted, not shown. Names from the host are escaped.
    """
    lines = []
    for each in findings:
        if each.verdict in ("pass", "skip") and not verbose:
            continue
        lines.append(f"{MARKS[each.verdict]:4}  {each.id:24} {shown(each.summary)[:400]}")
        if each.verdict in ("fail", "warn", "unknown"):
            for evidence in each.evidence[:3]:
                where = (evidence.path or "") + (f":{evidence.line}" if evidence.line else "")
                what = f"`{evidence.cmd}` -> {evidence.rc}" if evidence.cmd else where
                last = evidence.excerpt.strip().rpartition("\n")[2]
                lines.append(f"      {shown(what)[:200]}" + (f"  {shown(last)[:200]}" if last else ""))
            if each.fix:
                lines.append(f"      fix: {shown(str(each.fix))[:300]}")
    counts = Counter(each.verdict for each in findings)
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict])
    lines.append(f"{shown(host)}: {total or 'nothing was checked'}")
    return "\n".join(lines) + "\n"


def as_json(host: str, findings: Sequence[Finding]) -> str:
    """Return one JSON object with everything."""
    counts = Counter(each.verdict for each in findings)
    whole = {"schema": "ops-agent.doctor/1", "host": host, "findings": [plain(each) for each in findings],
             "totals": {verdict: counts[verdict] for verdict in MARKS}}  # fmt: skip
    return json.dumps(whole, ensure_ascii=True) + "\n"


def as_ndjson(host: str, findings: Sequence[Finding]) -> str:
    """Return one JSON object a line, a finding each."""
    return "".join(json.dumps({"host": host, **plain(each)}, ensure_ascii=True) + "\n" for each in findings)


def as_sarif(host: str, findings: Sequence[Finding], checks: Sequence[Check], version: str) -> str:
    """Return a SARIF 2.1.0 log with one run."""
    rules: list[dict[str, Any]] = [
        {
            "id": each.id,
            "shortDescription": {"text": f"Reads {each.reads}."},
            "fullDescription": {"text": f"Objects when: {each.fails_when}."},
            "properties": {"severity": each.severity, "blocksPreflight": each.blocks},
        }
        for each in checks
    ]
    index = {each.id: at for at, each in enumerate(checks)}
    driver: dict[str, Any] = {"name": "ops-agent doctor", "version": version, "rules": rules}
    results = [_result(host, each, index[each.id]) for each in findings]
    log: dict[str, Any] = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(log, ensure_ascii=True) + "\n"


def _result(host: str, finding: Finding, rule: int) -> dict[str, Any]:
    from urllib.parse import quote

    text = finding.summary + (f" Fix: {finding.fix}" if finding.fix else "")
    locations = []
    for each in finding.evidence:
        if each.path and each.path.startswith("/"):
            physical: dict[str, Any] = {
                "artifactLocation": {"uri": "file://" + quote(each.path.encode("utf-8", "backslashreplace"))}
            }
            if each.line:
                physical["region"] = {"startLine": each.line}
            locations.append({"physicalLocation": physical})
    nowhere: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": f"{host}/{finding.subject}"}]}
    result: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": rule,
        "level": LEVELS[finding.verdict],
        "kind": KINDS.get(finding.verdict, "fail"),
        "message": {"text": text},
        "locations": locations[:10] or [nowhere],
        "partialFingerprints": {"idAndSubject/v1": fingerprint(finding)},
        "properties": {"verdict": finding.verdict, "subject": finding.subject, "host": host},
    }
    if result["kind"] != "fail":
        result["level"] = "none"  # SARIF 3.27.10: of any other kind than fail
    return result


def fingerprint(finding: Finding) -> str:
    """Return what stays the same when the same thing is found again: the digest of id and subject."""
    return hashlib.sha256(f"{finding.id}\0{finding.subject}".encode("utf-8", "backslashreplace")).hexdigest()
