"""The documents say what is so: their blocks run, their links lead somewhere, the README's help is the help."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.parts.run_document import blocks

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "docs/architecture.md",
        "docs/audit.md",
        "docs/capabilities.md",
        "docs/executors.md",
        "docs/python.md",
        "docs/testing.md",
    )
]


def script(name: str) -> ModuleType:
    """One of the project's scripts, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_tells_people_to_run_works(document: Path, tmp_path: Path) -> None:
    """In a directory, a home and an audit log of its own; warnings are errors."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "opsexec"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m opsexec.cli "$@"\n')
    command.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.parts.run_document", str(document)],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_link_leads_somewhere() -> None:
    assert script("check_links").main() == 0


def anchors(document: Path) -> set[str]:
    """The fragments that a document's headings answer to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name)
def test_a_link_into_a_document_leads_to_a_heading(document: Path) -> None:
    for target, fragment in re.findall(r"\]\(([^)\s#:]*)#([^)]+)\)", document.read_text()):
        assert fragment in anchors(document.parent / target if target else document), f"{target}#{fragment}"


@pytest.mark.parametrize("record", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_has_its_four_parts_in_order(record: Path) -> None:
    """As record 0001 asks for."""
    text = record.read_text()
    assert text.startswith(f"# {record.name[:4]}: ")
    parts = re.findall(r"^(Status:|## .*)", text, re.MULTILINE)
    assert parts == ["Status:", "## Context", "## Decision", "## Consequences"]


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/decisions").glob("*.md")]
    assert len(set(numbers)) == len(numbers)


def test_the_help_in_the_readme_is_the_help() -> None:
    text = (ROOT / "README.md").read_text()
    assert script("write_readme_help").with_help(text) == text, "run: python scripts/write_readme_help.py"


def test_the_readme_names_both_commands_in_blocks_of_their_own() -> None:
    texts = [block.text for block in blocks((ROOT / "README.md").read_text()) if block.language == "sh"]
    assert texts.count("make demo\n") == texts.count("make test\n") == 1
