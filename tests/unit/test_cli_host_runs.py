"""`opsexec runs` of a host: what its agent keeps, as a person reads it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from opsexec.cli import main
from tests.parts.fake_agent import FakeAgent, result

RUN = {"run": "a" * 16, "principal": "unix:deploy", "state": "ended", "begun": 1.7e9 + 0.25, "step": {"type": "exec"}}


@pytest.fixture
def keeps_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    agent = FakeAgent(tmp_path / "socket")
    agent.says = result({"runs": [RUN]})
    with agent.serving():
        yield f"agent+unix://{tmp_path}/socket"
    monkeypatch.undo()
    time.tzset()


def test_when_a_run_began_is_a_time_to_people_and_the_agents_number_to_programs(keeps_a_run: str, capfd) -> None:
    for words in (["list", keeps_a_run], ["show", keeps_a_run, "aaaa"]):
        assert main(["runs", *words]) == 0
        assert "2023-11-14 22:13:20" in capfd.readouterr().out
        assert main(["runs", *words, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["runs"] == [RUN]
