"""The engine over the shipped fake host: executors, handlers and audit records are the real ones."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from opsexec.errors import (
    AuditUnavailable,
)
from opsexec.runbook import (
    Assert,
    Journal,
    PlainProgress,
    Retry,
    Runbook,
    RunbookStep,
    Template,
    execute,
)
from opsexec.steps import Exec, Shell, WriteFile
from opsexec.testing import Answer, FakeHost, MemoryAudit
from tests.parts.runbook_fleet import Fleet, load, statuses

pytestmark = pytest.mark.anyio


async def test_steps_run_in_order_and_the_report_has_the_documented_form():
    fleet = Fleet(a={"id": "uid=0\n", "false": 1}, b={"id": 3})
    report = await fleet.run("- exec: [id]\n- write: { path: /srv/x, content: hi, parents: true }\n")
    data = report.as_json()
    assert set(data) == {"run", "hosts", "totals"}
    assert data["totals"] == {"ok": 0, "changed": 1, "skipped": 0, "failed": 1, "unreachable": 0}
    (first, second) = data["hosts"]["a"]["steps"]
    assert set(first) == {"name", "status", "changed", "exit_code", "duration_s", "stdout_tail", "error"}
    assert (first["name"], first["status"], first["stdout_tail"]) == ("exec id", "changed", "uid=0\n")
    assert (second["name"], second["status"]) == ("write /srv/x", "changed")
    (failed,) = data["hosts"]["b"]["steps"]
    assert (failed["status"], failed["exit_code"]) == ("failed", 3)
    assert "exit status 3" in failed["error"]
    assert report.exit_code == 1
    assert fleet.hosts["a"].content("/srv/x") == b"hi"


async def test_a_failed_host_stops_and_the_others_go_on():
    fleet = Fleet(a={"id": 1, "ls": 0}, b={"id": 0, "ls": 0})
    report = await fleet.run("- exec: [id]\n- exec: [ls]\n")
    assert fleet.ran("a") == [["id"]]
    assert fleet.ran("b") == [["id"], ["ls"]]
    assert (report.hosts["a"].status, report.hosts["b"].status) == ("failed", "changed")


async def test_an_unreachable_host_is_said_to_be_one():
    fleet = Fleet(a={}, b={"id": 0})
    fleet.down = {"a"}
    report = await fleet.run("steps: [{exec: [id]}]\nalways: [{exec: [id]}]\nname: t\nhosts: all\n")
    assert statuses(report) == ["unreachable"]
    assert report.totals["unreachable"] == 1
    assert report.exit_code == 1
    fleet.down = {"a", "b"}
    assert (await fleet.run("- exec: [id]")).exit_code == 3


async def test_a_host_with_nothing_to_do_is_never_contacted():
    fleet = Fleet(a={})
    report = await fleet.run("- exec: [id]\n  when: ${host} == b\n- assert: ${host} == a\n")
    assert fleet.opened == []
    assert statuses(report) == ["skipped", "ok"]


async def test_forks_bound_the_hosts_at_once():
    fleet = Fleet(**{f"h{i}": {"id": Answer(delay_s=0.01)} for i in range(12)})
    report = await fleet.run("- exec: [id]", forks=3)
    assert report.totals["changed"] == 12
    assert fleet.busy == 3


async def test_when_changed_needs_an_earlier_change():
    fleet = Fleet(a=FakeHost(files={"/x": b"old"}, answers={"reload": 0}))
    book = "- write: { path: /x, content: new }\n- exec: [reload]\n  when: changed\n"
    assert statuses(await fleet.run(book)) == ["changed", "changed"]
    assert statuses(await fleet.run(book)) == ["ok", "skipped"]
    assert fleet.ran("a") == [["reload"]]


async def test_register_feeds_conditions_and_texts():
    fleet = Fleet(a={"cat": "v1\n", "echo *": 0})
    report = await fleet.run("""
        - exec: [cat]
          register: out
          changed_when: "'v2' in ${result.stdout}"
        - exec: [echo, "got-${out.stdout}"]
          when: ${out.exit_code} == 0 and not changed
        - assert: { that: "${out.stdout} == v2", message: "still ${out.stdout} on ${host}" }
    """)
    assert fleet.ran("a")[1] == ["echo", "got-v1"]
    assert statuses(report) == ["ok", "changed", "failed"]
    assert report.hosts["a"].steps[-1].error == "still v1 on a"


async def test_a_step_is_tried_again_until_it_succeeds():
    fleet = Fleet(a={"flaky": [1, 1, 0]})
    report = await fleet.run("- exec: [flaky]\n  retry: { times: 3 }\n")
    assert statuses(report) == ["changed"]
    assert len(fleet.ran("a")) == 3


async def test_tries_are_bounded_and_a_denied_step_is_not_tried_again():
    fleet = Fleet(a={"flaky": 1})
    await fleet.run("- exec: [flaky]\n  retry: { times: 2 }\n")
    assert len(fleet.ran("a")) == 3
    fleet.details["a"] = {"capabilities": ("fs.read:/**",)}
    report = await fleet.run("- exec: [id]\n  retry: { times: 5 }\n")
    assert statuses(report) == ["failed"]
    assert len(fleet.audit.records) == 3 * 2 + 1


async def test_a_deadline_ends_the_step():
    fleet = Fleet(a={"sleep 60": Answer(delay_s=60)})
    report = await fleet.run("- exec: [sleep, 60]\n  timeout: 0.05\n")
    said = str(report.hosts["a"].steps[0].error)
    assert "no end after" in said
    assert said.endswith("(raise timeout)")  # the key of the step, not the library's argument


async def test_a_deadline_that_a_step_brings_is_told_by_its_key():
    fleet = Fleet(a={"id": "-3\n"})
    report = await fleet.run("- exec: [id]\n  register: out\n- exec: [id]\n  timeout: ${out.stdout}\n")
    error = str(report.hosts["a"].steps[1].error)
    assert "timeout -3.0 is not a positive number" in error
    assert error.endswith("(like timeout: 30)")


async def test_allow_failure_reports_it_and_goes_on():
    fleet = Fleet(a={"id": 1, "ls": 0})
    report = await fleet.run("- exec: [id]\n  allow_failure: true\n  register: out\n- assert: ${out.failed}\n")
    assert statuses(report) == ["failed", "ok"]
    assert report.exit_code == 0


async def test_always_runs_after_success_and_after_failure_and_each_of_its_steps_is_tried():
    fleet = Fleet(a={"id": 1, "c1": 1, "c2": 0}, b={"id": 0, "c1": 0, "c2": 0})
    report = await fleet.run("name: t\nhosts: all\nsteps: [{exec: [id]}]\nalways: [{exec: [c1]}, {exec: [c2]}]\n")
    assert fleet.ran("a") == [["id"], ["c1"], ["c2"]]
    assert fleet.ran("b") == [["id"], ["c1"], ["c2"]]
    assert report.exit_code == 1


async def test_always_can_look_at_failed_and_at_results_that_never_came():
    fleet = Fleet(a={"id": 1, "rollback": 0})
    report = await fleet.run("""
        name: t
        hosts: all
        steps:
          - exec: [id]
          - exec: [ls]
            register: later
        always:
          - exec: [rollback]
            when: failed
          - assert: ${later.skipped} == 'not run'
    """)
    assert fleet.ran("a") == [["id"], ["rollback"]]
    assert statuses(report) == ["failed", "changed", "ok"]


async def test_tags_choose_steps():
    fleet = Fleet(a={"id": 0, "ls": 0})
    report = await fleet.run("- exec: [id]\n  tags: [one]\n- exec: [ls]\n  tags: [two, three]\n", tags=["three"])
    assert fleet.ran("a") == [["ls"]]
    assert statuses(report) == ["skipped", "changed"]


async def test_check_mode_touches_nothing_and_predicts():
    fleet = Fleet(a=FakeHost(files={"/x": b"old\n"}))
    report = await fleet.run(
        """
        - write: { path: /x, content: "new\\n" }
        - exec: [reload]
          register: out
        - assert: ${out.stdout} == ready
        - exec: [after]
          when: changed
        """,
        check=True,
    )
    assert fleet.hosts["a"].content("/x") == b"old\n"
    assert fleet.ran("a") == []
    assert statuses(report) == ["changed", "changed", "skipped", "changed"]
    assert report.exit_code == 0


async def test_diff_is_shown_when_asked_for():
    out = io.StringIO()
    fleet = Fleet(a=FakeHost(files={"/x": b"old\n"}))
    await fleet.run('- write: { path: /x, content: "new\\n" }', diff=True, progress=PlainProgress(out))
    assert "a |   -old" in out.getvalue()
    assert "a |   +new" in out.getvalue()


async def test_diff_is_in_the_json_when_asked_for_and_never_in_the_journal(tmp_path):
    book = '- write: { path: /x, content: "new\\n" }\n- exec: [id]\n'
    fleet = Fleet(a=FakeHost(answers={"id": 0}, files={"/x": b"old\n"}))
    report = await fleet.run(book, Journal(tmp_path), diff=True)
    write, program = report.as_json()["hosts"]["a"]["steps"]
    assert "+new" in write["diff"]
    assert "diff" not in program
    (file,) = Path(tmp_path).iterdir()
    assert "+new" not in file.read_text()
    again = await Fleet(a=FakeHost(answers={"id": 0}, files={"/x": b"old\n"})).run(book)
    assert "diff" not in again.as_json()["hosts"]["a"]["steps"][0]


async def test_plain_progress_is_one_line_a_step_and_a_summary():
    out = io.StringIO()
    fleet = Fleet(a={"id": 0, "ls": 2})
    await fleet.run("- exec: [id]\n- exec: [ls]\n", progress=PlainProgress(out))
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("t on 1 host")
    assert lines[1].startswith("a | exec id: changed")
    assert "exit status 2" in lines[2]
    assert lines[-1].endswith("1 failed")


async def test_no_audit_no_run():
    fleet = Fleet(a={"id": 0}, b={"id": 0})
    fleet.audit = MemoryAudit(AuditUnavailable("the disk is full"))
    with pytest.raises(AuditUnavailable):
        await fleet.run("- exec: [id]")
    assert fleet.ran("a") == []


async def test_a_runbook_written_in_python_runs():
    fleet = Fleet(a={"uptime": "up 3 days\n", "sh **": 0})
    runbook = Runbook(
        name="py",
        hosts="all",
        vars={"root": "/srv"},
        steps=[
            RunbookStep(Exec(["uptime"]), name="is it up", register="up", retry=Retry(2)),
            RunbookStep(Template(WriteFile, path="${root}/up", content="${up.stdout}\n", parents=True)),
            RunbookStep(Shell("a.b", "echo $root"), when="changed"),
            RunbookStep(Assert("days in ${up.stdout}")),
        ],
    )
    report = await execute(runbook, fleet.inventory, fleet.connect)
    assert statuses(report) == ["changed", "changed", "changed", "ok"]
    assert fleet.hosts["a"].content("/srv/up") == b"up 3 days\n"


async def test_run_is_the_short_way_with_a_journal(tmp_path):
    fleet = Fleet(a={"id": 0})
    report = await load("- exec: [id]").run(fleet.inventory, connect=fleet.connect, state_dir=str(tmp_path))
    assert report.ok
    assert (tmp_path / f"{report.run}.jsonl").exists()
