"""What is written of the doctor is so: the catalogue is the checks, and the examples are accepted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agent.services.catalogue import document
from agent.services.check import checks
from agent.services.declaration import parse_declaration
from agent.services.doctor import OF_A_SERVICE, Request, examine
from opsexec.capability import CapabilitySet
from opsexec.steps.questions import QUESTIONS
from opsexec.testing import fake_executor
from tests.unit.test_doctor_engine import host

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "doctor.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
CHANGING = frozenset({
    "start", "stop", "restart", "enable", "disable", "mask", "unmask", "rm", "run", "create", "kill", "pull", "bootout",
    "bootstrap", "daemon-reload", "set-property", "edit", "link", "exec", "rmi", "prune",
})  # fmt: skip


def test_the_catalogue_is_what_the_checks_say_of_themselves():
    text = (DOCS / "doctor-checks.md").read_text()
    assert text == document(), "run: python -m agent.services.catalogue > docs/doctor-checks.md"


def test_every_check_says_what_it_reads_and_what_it_objects_to():
    for each in checks():
        assert each.reads
        assert each.fails_when
        assert not each.reads.endswith(".")


def test_the_declaration_of_the_page_is_accepted():
    declared = parse_declaration(BLOCKS[1].encode(), "doctor.md")
    assert declared.lifecycle.max_restarts_per_hour == 3


@pytest.mark.anyio
async def test_the_least_capabilities_of_the_page_are_enough_for_a_service():
    held = CapabilitySet.of(*tomllib.loads(BLOCKS[0])["capabilities"])
    async with fake_executor(host(), held) as ex:
        found = await examine(ex, Request("web"))
    assert {each.id for each in found.findings} == {each.id for each in checks(OF_A_SERVICE) if not each.opt_in}
    assert not [each for each in found.findings if "may not" in each.summary]


def test_no_question_changes_anything():
    for each in QUESTIONS.values():
        words = {word for word in each.argv[1:] if not word.startswith("-")}
        assert not words & CHANGING, each
