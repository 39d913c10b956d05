"""Copies by a program that is installed where paths have spaces and quotes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import opsexec
from tests.conftest import require


@pytest.mark.parametrize("name", ["a place", "it's", 'a "place"  of its own', "back\\slash $HOME"])
def test_where_it_is_installed_makes_no_difference_to_a_copy(name: str, tmp_path: Path) -> None:
    require("rsync", "needs rsync")
    place = tmp_path / name
    shutil.copytree(Path(opsexec.__file__).parent, place / "opsexec", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    done = subprocess.run(
        [sys.executable, "-m", "opsexec.cli", "push", "local:", f"{source}/", f"{tmp_path}/there/", "--json"],
        cwd=place,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"method": "rsync"' in json.dumps(json.loads(done.stdout))
    assert (tmp_path / "there" / "file").read_text() == "content"
