"""docs/executors.md: its tables of errors and of times are those of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import opsexec
from opsexec import errors
from opsexec.errors import OpsError
from opsexec.far.launch import KEPT

TEXT = (Path(__file__).parents[2] / "docs/executors.md").read_text()
ERRORS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d) \|", TEXT, re.MULTILINE)
TIMES = re.findall(r"^\| .* \| ([\d.]+) \| `([\w.]+):([\w.]+)` \|$", TEXT, re.MULTILINE)


def test_every_error_has_its_row() -> None:
    family = {
        (name, kind.code, str(kind.exit_code))
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, OpsError) and kind is not OpsError
    }
    assert set(ERRORS) == family


def test_every_error_is_caught_by_its_name_in_opsexec() -> None:
    for name, _, _ in ERRORS:
        assert getattr(opsexec, name) is getattr(errors, name)
        assert name in opsexec.__all__


@pytest.mark.parametrize(("seconds", "module", "name"), TIMES)
def test_a_time_is_what_it_says(seconds: str, module: str, name: str) -> None:
    first, _, rest = name.partition(".")
    value = getattr(import_module(module), first)
    assert (getattr(value(), rest) if rest else value) == float(seconds)


def test_there_are_times() -> None:
    assert len(TIMES) > 5


def test_what_a_program_inherits_is_listed() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| environment |"))
    assert set(KEPT) <= set(re.findall(r"[A-Z_]{2,}", row))
