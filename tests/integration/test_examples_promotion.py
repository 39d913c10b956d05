"""The promotion of examples/ on real files: what doesn't need the service it promotes, on a host that has had none."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import Inventory, Runbook
from opsexec.inventory import InventoryHost
from opsexec.runbook import Report
from tests.conftest import require

pytestmark = pytest.mark.anyio
BOOK = Path(__file__).parents[2] / "examples/promotion/promote.yaml"
SERVED = {"restart", "it answers", "it is the new one"}
"""Steps that need the web server itself."""


def below(place: Path) -> Runbook:
    """The runbook as it stands, with another place than /srv/web."""
    text = BOOK.read_text().replace("/srv/web", str(place)).replace("200000", "1")
    book = Runbook.parse(text.replace("./site/", f"{BOOK.parent}/site/"), str(BOOK))
    steps = [step for step in book.steps if step.name not in SERVED]
    return dataclasses.replace(book, steps=steps, tiers=[], always=[])


async def promote(place: Path, version: str, *, check: bool = False) -> list[str]:
    hosts = Inventory([InventoryHost(name="web1", url="local:", groups=("web",), vars={"port": 80})])
    report: Report = await below(place).run(hosts, vars={"version": version}, check=check)
    steps = report.hosts["web1"].steps
    assert all(step.error is None for step in steps), steps
    return [step.name for step in steps if step.status == "changed"]


async def test_a_first_promotion_is_foreseen_made_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("rsync", "needs rsync")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = tmp_path / "web"
    made = ["a place for releases", "its label", "the release", "go live"]
    foreseen = await promote(place, "1.4.2", check=True)
    assert [name for name in foreseen if name != "room for a release"] == made
    assert not place.exists()
    assert await promote(place, "1.4.2") == made
    assert (place / "current/release.txt").read_text() == "1.4.2 on web1\n"
    assert (place / "current/index.html").exists()
    assert await promote(place, "1.4.2") == []
    assert await promote(place, "1.4.3") == made[1:]
    assert (place / "current").readlink() == place / "releases/1.4.3"


def test_the_promotion_in_python_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    argv = [sys.executable, str(BOOK.with_suffix(".py")), "nowhere.toml", "1.4.2", "--check"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "promote: nowhere.toml: can't be read (No such file or directory) (name another with -i)\n"
