"""SARIF logs against the rules of 2.1.0: every verdict, every check, and names that no host should have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest

from agent.services import report
from agent.services.check import checks
from agent.services.doctor import Request, examine
from agent.services.finding import Evidence, Finding, Fix
from opsexec.testing import fake_executor
from tests.unit.test_doctor_engine import DECLARED, host

pytestmark = pytest.mark.anyio
RULES = json.loads((Path(__file__).parent.parent / "cases" / "sarif-2.1.0.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(RULES)


def problems(log: object) -> list[str]:
    return [f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in VALIDATOR.iter_errors(log)]


def written(*findings: Finding) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(report.as_sarif("web1", list(findings), checks(), "1.0"))
    assert problems(log) == []
    return log


def test_the_rules_themselves_are_a_schema_and_refuse_what_is_wrong():
    jsonschema.Draft202012Validator.check_schema(RULES)
    log = written(Finding(id="svc.state", subject="host", verdict="pass", severity="low", summary="ok"))
    result = log["runs"][0]["results"][0]
    changes: tuple[dict[str, Any], ...] = (
        {"level": "error"},
        {"kind": "passed"},
        {"message": {}},
        {"ruleIndex": -2},
        {"verdict": "pass"},
    )
    for wrong in changes:
        bad = {**log, "runs": [{**log["runs"][0], "results": [{**result, **wrong}]}]}
        assert problems(bad), wrong


@pytest.mark.parametrize("verdict", ["pass", "info", "warn", "fail", "skip", "unknown"])
def test_every_verdict_of_every_check_is_valid(verdict):
    every = [
        Finding(id=each.id, subject="service:web", verdict=verdict, severity=each.severity, summary="it is so")
        for each in checks()
    ]
    log = written(*every)
    (run,) = log["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


@pytest.mark.parametrize(
    "path", ["/a b", "/\x1b[2J", "/\udcff\udcfe", "/\n", "/ü", "/%", "/#?", "relative", "", "/" + "x" * 5000], ids=repr
)
def test_a_name_no_host_should_have_leaves_the_log_valid(path):
    evidence = (Evidence(path=path, line=3), Evidence(path=path), Evidence(cmd="x", rc=1))
    fix = Fix(text="do", argv=("a\nb", "\x1b"))
    finding = Finding(
        id="svc.perms", subject="service:w", verdict="fail", severity="high", summary="s", evidence=evidence, fix=fix
    )
    written(finding)


def test_a_fingerprint_stays_and_names_id_and_subject():
    def of(**changed):
        base = {"id": "svc.perms", "subject": "service:web", "verdict": "fail", "severity": "high", "summary": "s"}
        (result,) = written(Finding(**{**base, **changed}))["runs"][0]["results"]
        return result["partialFingerprints"]["idAndSubject/v1"]

    assert of() == of(summary="other", verdict="pass")
    assert len({of(), of(subject="service:db"), of(id="svc.state")}) == 3


async def test_what_a_whole_run_finds_is_valid():
    async with fake_executor(host()) as ex:
        found = await examine(ex, Request("web", declaration=DECLARED))
    log = json.loads(report.as_sarif(found.host, found.findings, found.checks, "1.0"))
    assert problems(log) == []
    assert len(log["runs"][0]["results"]) == len(found.findings)
