"""Every attack has a test or a reason, every expected failure an explanation, and every attack a promise it tries."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.parts.attack_table import NOT_MET, recorded
from tests.parts.attacks import ROOT, attacks

MODEL = ROOT / "docs" / "threat-model.md"


@pytest.mark.timeout(180)
def test_every_attack_has_a_test_or_a_stated_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.parts.attack_table"],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def named(text: str) -> set[str]:
    """Every attack that a text names, ranges (`PA1-PA13`) included."""
    known = list(attacks())
    found = set(re.findall(r"\b[A-Z]{2}[0-9]+\b", text)) & set(known)
    for kind, first, last in re.findall(r"\b([A-Z]{2})([0-9]+)-\1([0-9]+)\b", text):
        found |= {each for each in known if each[:2] == kind and int(first) <= int(each[2:]) <= int(last)}
    return found


def part(heading: str) -> str:
    """One part of the threat model."""
    return MODEL.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_attack_tries_a_promise_or_is_said_not_to_be_met() -> None:
    assert set(attacks()) - named(part("What is promised")) - named(part("What isn't met")) == set()


def test_every_expected_failure_is_explained_and_counted() -> None:
    failing = {key.attack for key, outcome in recorded().items() if outcome.startswith(NOT_MET)}
    explained = set(re.findall(r"^\| ([A-Z]{2}[0-9]+) \|", part("What isn't met"), re.MULTILINE))
    assert failing == explained
    numbers = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven", 8: "Eight", 9: "Nine"}
    assert f"{numbers.get(len(failing), len(failing))} of {len(attacks())}." in part("What isn't met")
