"""What a command's work leaves on the terminal that isn't its own."""

from __future__ import annotations

import logging

import pytest

from opsexec.cli.drive import drive


def test_of_asyncios_words_a_child_that_ended_first_is_not_said(capfd: pytest.CaptureFixture[str]) -> None:
    asyncios = logging.getLogger("asyncio")
    handler = logging.StreamHandler()  # what is said where nobody has set logging up
    asyncios.addHandler(handler)

    async def work() -> int:
        asyncios.warning("Unknown child process pid %d, will report returncode 255", 7)
        asyncios.warning("Loop %r that handles pid %r is closed", "loop", 7)
        asyncios.error("Task exception was never retrieved")
        return 3

    try:
        assert drive(work) == 3
    finally:
        asyncios.removeHandler(handler)
    assert capfd.readouterr().err == "Task exception was never retrieved\n"
