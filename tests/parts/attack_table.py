"""docs/attack-results.md: which test shows each attack where, and how it ended. A run writes it, and it is the record.

A run replaces what the files it ran whole have to say, and keeps the rest; the same outcomes give the same text.
`python -m tests.parts.attack_table` collects alone, and prints what no test shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.parts.attacks import PLACES, ROOT, attacks, shown_by, unshown

RESULTS = ROOT / "docs" / "attack-results.md"
WRITE = "ATTACK_RESULTS"
MET, FAILED, NOT_MET, NOT_RUN = "met", "FAILED", "not met", "not run"
WORST = (FAILED, NOT_MET, NOT_RUN, MET)
HEAD = """# What came of the attacks

`make test` writes this file; what is tried is in [attacks.md](attacks.md). `met`: what must come of it was observed.
`not met`: the test is an expected failure, and [threat-model.md](threat-model.md) says why. `no test`: with the reason.
"""
_ROW = re.compile(r"\| ([A-Z]{2}[0-9]+) \| ([a-z]+) \| [^|]* \| (.*) \|\Z")
_ENTRY = re.compile(r"(\S+\.py) (\w+)(?: \((.*)\))?\Z")


class Key(NamedTuple):
    """One test function about one attack in one place."""

    attack: str
    place: str
    file: str
    function: str


class AttackTable:
    """The pytest plugin: gives each test its attacks, and writes what came of them when a session asks for it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: dict[Key, str] = {}
        self._cut_short = False
        self.collected: set[Key] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Tie a test to its attacks, in a form that a worker's report carries along."""
        for attack, place in shown_by(item):
            item.user_properties.append(("attack", f"{attack} {place}"))
            self.collected.add(_key(item.nodeid, f"{attack} {place}"))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Some tests of attacks were left out: no file was run whole."""
        if any(name == "attack" for item in items for name, _ in item.user_properties):
            self._cut_short = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended."""
        outcome = _outcome(report)
        for name, value in report.user_properties:
            if name == "attack" and outcome is not None:
                key = _key(report.nodeid, str(value))
                self._found[key] = _worse(self._found.get(key, MET), outcome)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the table, from the process that all reports came to."""
        asked = os.environ.get(WRITE) == "1" and not hasattr(self._config, "workerinput")
        whole = exitstatus in (0, 1) and not (session.shouldfail or session.shouldstop or self._cut_short)
        if asked and whole and self._found and not self._chosen():
            write(self._found)

    def _chosen(self) -> bool:
        """Return whether the command line chose tests, where whole files are what a record is made of."""
        options = self._config.option
        names = ("keyword", "markexpr", "collectonly", "lf", "failedfirst", "stepwise")
        return any(getattr(options, name, None) for name in names) or any("::" in each for each in self._config.args)


def _key(nodeid: str, attack: str) -> Key:
    file, _, name = nodeid.partition("::")
    which, _, place = attack.partition(" ")
    return Key(which, place, file.removeprefix("tests/"), name.partition("[")[0].rpartition("::")[2])


def _outcome(report: pytest.TestReport) -> str | None:
    """Return what a phase of a test says; None for one that says nothing."""
    if report.failed:
        return FAILED
    if report.skipped:
        if hasattr(report, "wasxfail"):
            return f"{NOT_MET}: {_line(report.wasxfail.removeprefix('reason: '))}"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return f"{NOT_RUN}: {_line(reason.removeprefix('Skipped: '))}"
    return MET if report.when == "call" else None


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/").replace("<", "(").replace(">", ")")


def _kind(outcome: str) -> str:
    return outcome.partition(":")[0]


def _worse(one: str, other: str) -> str:
    """Return the worse of two; of two alike the text that sorts first, so that no order of tests shows."""
    return min(one, other, key=lambda outcome: (WORST.index(_kind(outcome)), outcome))


def write(found: Mapping[Key, str], path: Path = RESULTS) -> None:
    """Merge a session's outcomes into the record, one session at a time."""
    with open(ROOT / "tests" / "conftest.py", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = recorded(path)
        text = render(merged(before, found))
        if not path.exists() or path.read_text("utf-8") != text:
            beside = path.with_suffix(".new")
            beside.write_text(text, "utf-8")
            beside.replace(path)


def recorded(path: Path = RESULTS) -> dict[Key, str]:
    """Read the record back from its own text."""
    if not path.exists():
        return {}
    rows = filter(None, map(_ROW.match, path.read_text("utf-8").splitlines()))
    found = {}
    for row in rows:
        for text in row[3].split("<br>"):
            if entry := _ENTRY.match(text):
                found[Key(row[1], row[2], entry[1], entry[2])] = entry[3] or MET
    return found


def merged(before: Mapping[Key, str], found: Mapping[Key, str]) -> dict[Key, str]:
    """Return the record with this session's files replaced; what couldn't run here stays as it was recorded."""
    ran = {key.file for key in found}
    kept = {key: each for key, each in before.items() if key.file not in ran and (ROOT / "tests" / key.file).exists()}
    new = {
        key: before[key] if _kind(each) == NOT_RUN and key in before else each
        for key, each in found.items()
    }  # fmt: skip
    return {**kept, **new}


def render(record: Mapping[Key, str]) -> str:
    """Return the document."""
    reasons = unshown()
    rows, counts = [], Counter[str]()
    for attack in attacks().values():
        for place in PLACES:
            tests = sorted((key, each) for key, each in record.items() if key[:2] == (attack.id, place))
            if not tests and place not in attack.where:
                continue
            outcome = MET
            for _, each in tests:
                outcome = _worse(outcome, each)
            if not tests:
                outcome = f"no test: {_line(reasons.get((attack.id, place), 'and no reason stated'))}"
            counts[_kind(outcome)] += 1
            told = [f"{key.file} {key.function}" + ("" if each == MET else f" ({each})") for key, each in tests]
            shown = _kind(outcome) if tests else outcome
            rows.append(f"| {attack.id} | {place} | {shown} | {'<br>'.join(told) or '-'} |")
    order = (MET, NOT_MET, NOT_RUN, FAILED, "no test")
    total = ", ".join(f"{counts[kind]} {kind}" for kind in order if counts[kind])
    table = ["| attack | where | outcome | shown by |", "| --- | --- | --- | --- |", *rows]
    return f"{HEAD}\n{len(attacks())} attacks, {sum(counts.values())} rows: {total}.\n\n" + "\n".join(table) + "\n"


def candidates() -> Iterator[str]:
    """Return the files that may hold tests of attacks."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.name.startswith(("test_bottle", "test_git_gate")) or "mark.attack(" in path.read_text("utf-8"):
            yield str(path.relative_to(ROOT))


def collect() -> set[Key]:
    """Return every test of an attack there is, by pytest's own collection in this process."""
    seen: list[AttackTable] = []

    class Watch:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            found = session.config.pluginmanager.get_plugin("attack-table")
            assert isinstance(found, AttackTable)
            seen.append(found)

    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *candidates()], plugins=[Watch()])
    if status != 0:
        raise SystemExit(said.getvalue()[-2000:])
    return seen[0].collected


def missing(keys: set[Key]) -> list[str]:
    """Return each attack and place that owes a test and has neither one nor a reason."""
    have, reasons = {key[:2] for key in keys}, unshown()
    owed = ((each.id, place) for each in attacks().values() for place in each.where)
    return [
        f"{attack} {place}" for attack, place in owed if (attack, place) not in have and (attack, place) not in reasons
    ]


def main(words: list[str]) -> int:
    """Print what no test shows, or with --json every (attack, place, file, function)."""
    every = collect()
    if words == ["--json"]:
        print(json.dumps(sorted(every)))
        return 0
    owed = missing(every)
    print("\n".join(owed) or "every attack has a test or a reason")
    return 1 if owed else 0


if __name__ == "__main__":
    # By its own name: under the name __main__ it would not be the module that registers the plugin.
    from tests.parts import attack_table

    sys.exit(attack_table.main(sys.argv[1:]))
