from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import PlainProgress, Report, Runbook, RunOptions, SilentProgress, execute, progress_for
from opsexec.runbook.live import LiveProgress
from opsexec.runbook.progress import StepFinished, plain_lines, printable
from opsexec.runbook.report import HostReport, StepReport
from opsexec.testing import Answer, FakeHost, fake_executor

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r[bold]not markup[/]"


class FakeTerminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_the_table_a_pipe_gets_lines_and_json_gets_silence():
    assert isinstance(progress_for(FakeTerminal()), LiveProgress)
    assert isinstance(progress_for(io.StringIO()), PlainProgress)
    assert isinstance(progress_for(FakeTerminal(), json=True), SilentProgress)


async def shown(out: io.StringIO) -> str:
    book = Runbook.parse("name: t\nhosts: all\nsteps: [{exec: [id]}, {exec: [bad]}]\n")
    hosts = Inventory([InventoryHost(name="web1", url="local:"), InventoryHost(name="b", url="local:")])
    answers = {"id": 0, "bad": Answer(exit_code=1, stderr=HOSTILE.encode())}

    def connect(host, capabilities):
        return fake_executor(FakeHost(host.name, answers=answers), capabilities)

    await execute(book, hosts, connect, RunOptions(), progress_for(out))
    return out.getvalue()


@pytest.mark.anyio
async def test_the_live_table_ends_with_a_summary_and_names_every_host():
    text = await shown(FakeTerminal())
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "web1 | exec id: changed" in plain
    assert "[bold]not markup[/]" in plain
    assert re.search(r"│ b +│ failed", plain)


@pytest.mark.anyio
@pytest.mark.parametrize("out", [FakeTerminal(), io.StringIO()])
async def test_what_a_host_says_never_drives_the_terminal(out):
    text = await shown(out)
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "\x1b[2J" not in text


def test_control_characters_are_replaced_and_lines_joined():
    assert printable("a\x1b[0mb\nc\td\u202e") == "a�[0mb / c\td�"


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_line_of_a_host_s_file_is_one_line_of_a_diff(end):
    """What comes behind such a character must not pass for a line that went, or that was there."""
    report = StepReport(name="write /f", status="changed")
    lines = plain_lines(StepFinished("web", "s", report, f" a\n+b{end}-c\n"))
    assert lines[1:] == ["web |    a", "web |   +b�-c"]


def test_the_exit_status_follows_the_hosts():
    def report(*statuses: str, **more) -> Report:
        hosts = {str(i): HostReport(str(i), [], status) for i, status in enumerate(statuses)}  # type: ignore[arg-type] # statuses as text
        return Report("r", hosts, **more)

    assert report("ok", "changed", "skipped").exit_code == 0
    assert report("ok", "failed").exit_code == 1
    assert report("ok", "unreachable").exit_code == 1
    assert report("unreachable", "unreachable").exit_code == 3
    assert report("ok", stopped="x", stopped_by_gate=True).exit_code == 3
    assert report("ok", interrupted=True).exit_code == 130


def test_a_note_is_in_the_json_only_where_there_is_one():
    assert "note" not in StepReport(name="x", status="ok").as_json()
    assert StepReport(name="x", status="ok", note="again").as_json()["note"] == "again"


def test_the_last_line_counts_hosts():
    from opsexec.runbook.progress import RunFinished

    report = Report("r1", {"a": HostReport("a", [], "ok"), "b": HostReport("b", [], "failed")}, stopped="why")
    assert plain_lines(RunFinished(report)) == ["run r1: 1 ok, 1 failed", "stopped: why"]


def test_loading_a_runbook_loads_neither_rich_nor_a_transport():
    code = (
        "import sys; from opsexec import Runbook; Runbook.parse('{name: t, hosts: all, steps: [{exec: [id]}]}');"
        "print([m for m in ('rich', 'asyncssh', 'pydantic', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
