"""docs/cli.md is the help of the commands as they are."""

from __future__ import annotations

from pathlib import Path

from opsexec.cli.reference import document

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"


def test_the_document_is_what_the_commands_say_of_themselves() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m opsexec.cli.reference > docs/cli.md"
