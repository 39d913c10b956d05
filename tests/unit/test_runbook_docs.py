"""docs/runbooks.md says what the code does: its blocks are loaded, its tables name every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opsexec.inventory import Inventory
from opsexec.runbook import Runbook
from opsexec.runbook.fields import KEYS, PROCESS
from opsexec.runbook.loader import TIER_KEYS, TOP_KEYS
from opsexec.runbook.loader_steps import ACTION_KEYS, COMMON_KEYS
from opsexec.runbook.model import RESERVED
from opsexec.runbook.results import registered

TEXT = (Path(__file__).parents[2] / "docs/runbooks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_runbook_in_the_docs_loads():
    (text,) = blocks("yaml")
    assert Runbook.parse(text).always


def test_the_inventory_in_the_docs_loads():
    (text,) = blocks("toml")
    (host,) = Inventory.parse(re.sub(r"\[sources\].*", "", text, flags=re.DOTALL)).hosts.values()
    assert host.identity_files


def test_the_python_in_the_docs_makes_a_runbook():
    (text,) = blocks("python")
    names: dict[str, object] = {"__name__": "docs"}
    exec(compile(text, "docs", "exec"), names)  # noqa: S102 - the document's own example is the test's subject
    assert isinstance(names["runbook"], Runbook)


@pytest.mark.parametrize("key", sorted({*TOP_KEYS, *TIER_KEYS, *ACTION_KEYS, *COMMON_KEYS, *PROCESS}))
def test_every_key_is_in_the_docs(key):
    assert re.search(rf"`{key}[:`]|^\s*-?\s*{key}:", TEXT, re.MULTILINE)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_step_has_its_row(key):
    assert re.search(rf"^\| `{key}` \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", [*registered(None), *(n for n in RESERVED if n != "result")])
def test_every_name_that_the_engine_sets_is_in_the_docs(name):
    assert f"`{name}`" in TEXT
