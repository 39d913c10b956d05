"""A secret that a program said is no less secret: it gets into no argv, and so into no audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsexec import Inventory, Runbook
from opsexec.inventory import InventoryHost
from opsexec.runbook import Report

pytestmark = pytest.mark.anyio
SECRET = "correct horse battery"
TELLS = '  - shell: { action: s, script: \'printf "<%s>" "$pw"\' }\n    env: { pw: "${pw}" }\n    register: said\n'


async def run(last: str, monkeypatch: pytest.MonkeyPatch, place: Path, secret: str = SECRET) -> tuple[Report, str]:
    """The report, and all that was kept of the run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    monkeypatch.setenv("TEST_PW", secret)
    book = Runbook.parse(
        f"name: t\nhosts: all\nvars: {{ pw: {{ from_env: TEST_PW }} }}\nsteps:\n{TELLS}{last}", "r.yaml"
    )
    report = await book.run(Inventory([InventoryHost(name="a", url="local:")]))
    return report, "".join(file.read_text() for file in place.rglob("*.jsonl"))


async def test_what_a_step_said_puts_no_secret_into_an_argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, kept = await run('  - exec: [echo, "${said.stdout}"]\n', monkeypatch, tmp_path)
    step = report.hosts["a"].steps[-1]
    assert step.status == "failed"
    assert "'${said.stdout}' would put a secret into argv" in str(step.error)
    assert "echo" in kept
    assert SECRET not in kept


async def test_it_may_stand_where_secrets_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = f'  - write: {{ path: {tmp_path}/kept, content: "${{said.stdout}}" }}\n'
    report, kept = await run(steps, monkeypatch, tmp_path)
    assert report.ok
    assert (tmp_path / "kept").read_text() == f"<{SECRET}>"
    assert SECRET not in kept


async def test_a_secret_of_a_letter_is_not_found_in_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, _ = await run('  - exec: [echo, "${said.stdout}"]\n', monkeypatch, tmp_path, secret="x")
    assert report.ok
