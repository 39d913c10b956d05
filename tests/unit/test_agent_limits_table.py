"""The table of docs/agent-limits.md has each row that the abuse tests see, and no other."""

from __future__ import annotations

import re

from tests.parts.limits_table import BEGIN, DOCUMENT, END, REPOSITORY, TITLES


def test_every_row_is_in_the_document_and_is_seen_by_a_test() -> None:
    written = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in written.strip().splitlines()[2:]]
    assert rows == list(TITLES.values())
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests/adversarial").glob("test_agent_abuse_*.py"))
    assert set(re.findall(r'record\(\s*"([a-z-]+)"', tests)) == set(TITLES)
