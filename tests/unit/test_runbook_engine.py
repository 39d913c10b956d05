"""The engine over the shipped fake host: executors, handlers and audit records are the real ones."""

from __future__ import annotations

import asyncio
import io
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from opsexec.errors import (
    AuditUnavailable,
    BadRunbook,
    CapabilityDenied,
    HostUnreachable,
    OpsError,
    UsageError,
)
from opsexec.inventory import Inventory, InventoryHost
from opsexec.runbook import (
    Approval,
    Assert,
    Engine,
    Journal,
    PlainProgress,
    Report,
    Retry,
    Runbook,
    RunbookStep,
    RunOptions,
    SilentProgress,
    Template,
    execute,
)
from opsexec.runbook.progress import StepFinished
from opsexec.steps import Exec, Shell, WriteFile
from opsexec.testing import Answer, FakeHost, MemoryAudit, fake_executor

pytestmark = pytest.mark.anyio


class Fleet:
    """An inventory of fake hosts, and the `connect` that reaches them."""

    def __init__(self, **hosts: FakeHost | Mapping[str, Any]) -> None:
        self.hosts = {n: h if isinstance(h, FakeHost) else FakeHost(n, answers=h) for n, h in hosts.items()}
        self.details: dict[str, dict[str, Any]] = {}
        self.opened: list[str] = []
        self.down: set[str] = set()
        self.open = self.busy = 0
        self.audit = MemoryAudit()

    @property
    def inventory(self) -> Inventory:
        return Inventory(
            InventoryHost(name=name, url=f"ssh://{name}", **self.details.get(name, {})) for name in self.hosts
        )

    def connect(self, host, capabilities):
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def opened():
            self.opened.append(host.name)
            if host.name in self.down:
                raise HostUnreachable("no route to host", host=host.name)
            self.open += 1
            self.busy = max(self.busy, self.open)
            try:
                async with fake_executor(self.hosts[host.name], capabilities, audit=self.audit) as ex:
                    yield ex
            finally:
                self.open -= 1

        return opened()

    async def run(self, runbook: Runbook | str, journal: Journal | None = None, **options: Any) -> Report:
        progress = options.pop("progress", None)
        made = load(runbook) if isinstance(runbook, str) else runbook
        return await execute(made, self.inventory, self.connect, RunOptions(**options), progress, journal)

    def ran(self, name: str) -> list[list[str]]:
        return [call[1:] for call in self.hosts[name].calls if call[0] == "process"]


def load(steps: str, head: str = "") -> Runbook:
    text = textwrap.dedent(steps)
    if "steps:" not in text:
        text = f"name: t\nhosts: all\n{textwrap.dedent(head)}steps:\n{textwrap.indent(text, '  ')}"
    return Runbook.parse(text, "r.yaml")


def statuses(report: Report, host: str = "a") -> list[str]:
    return [step.status for step in report.hosts[host].steps]


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
    assert "no end after" in str(report.hosts["a"].steps[0].error)


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


async def test_plain_progress_is_one_line_a_step_and_a_summary():
    out = io.StringIO()
    fleet = Fleet(a={"id": 0, "ls": 2})
    await fleet.run("- exec: [id]\n- exec: [ls]\n", progress=PlainProgress(out))
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("t on 1 host")
    assert lines[1].startswith("a | exec id: changed")
    assert "exit status 2" in lines[2]
    assert lines[-1].endswith("1 failed")


TIERS = """
name: t
hosts: all
tiers:
  - { hosts: "&dev" }
  - { hosts: "&prod", serial: [1, "100%"], approve: true }
steps:
  - exec: [deploy, "${tier}"]
"""


def tiered(**answers: Any) -> Fleet:
    fleet = Fleet(**{name: {"deploy *": answers.get(name, 0)} for name in ("d1", "p1", "p2", "p3")})
    for name in fleet.hosts:
        fleet.details[name] = {"groups": ("dev" if name[0] == "d" else "prod",)}
    return fleet


async def test_tiers_go_in_order_and_in_batches():
    fleet = tiered()
    report = await fleet.run(TIERS, yes=True)
    assert fleet.opened[:2] == ["d1", "p1"]
    assert sorted(fleet.opened[2:]) == ["p2", "p3"]
    assert fleet.ran("p2") == [["deploy", "prod"]]
    assert report.exit_code == 0


async def test_a_failure_holds_back_the_next_batch_and_the_next_tier():
    fleet = tiered(p1=1)
    report = await fleet.run(TIERS, yes=True)
    assert fleet.opened == ["d1", "p1"]
    assert "1 of 3 hosts of tier prod failed" in str(report.stopped)
    assert report.totals["skipped"] == 2
    fleet = tiered(d1=1)
    await fleet.run(TIERS, yes=True)
    assert fleet.opened == ["d1"]


async def test_max_failures_lets_that_many_pass():
    fleet = tiered(p1=1)
    report = await fleet.run(TIERS.replace("approve: true", "max_failures: '34%'"))
    assert len(fleet.opened) == 4
    assert report.exit_code == 1


async def test_a_gate_asks_once_and_a_refusal_stops_with_3():
    asked: list[Approval] = []

    async def refuse(approval: Approval) -> bool:
        asked.append(approval)
        return False

    fleet = tiered()
    report = await fleet.run(TIERS, approver=refuse)
    assert [(a.tier, list(a.hosts)) for a in asked] == [("prod", ["p1", "p2", "p3"])]
    assert asked[0].totals["changed"] == 1
    assert fleet.opened == ["d1"]
    assert report.exit_code == 3


async def test_without_a_terminal_a_gate_stops_with_3_and_resume_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    fleet = tiered()
    report = await fleet.run(TIERS, Journal(tmp_path))
    assert report.exit_code == 3
    assert f"--resume {report.run} --yes" in str(report.stopped)
    again = await fleet.run(TIERS, Journal(tmp_path), resume=report.run, yes=True)
    assert again.exit_code == 0
    assert fleet.opened.count("d1") == 1


async def test_limit_cuts_and_a_limit_that_selects_nothing_is_an_error():
    fleet = tiered()
    await fleet.run(TIERS, yes=True, limit="p2")
    assert fleet.opened == ["p2"]
    with pytest.raises(UsageError):
        await fleet.run(TIERS, yes=True, limit="p9")


async def test_a_tier_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UsageError, match="stagign"):
        await tiered().run(TIERS.replace("&dev", "&stagign"))


async def test_a_selected_host_that_no_tier_takes_is_mentioned():
    fleet = tiered()
    fleet.details["d1"] = {"groups": ("dev",)}
    fleet.hosts["x1"] = FakeHost("x1")
    report = await fleet.run(TIERS, yes=True)
    assert report.notices == ["no tier takes x1: nothing is done there"]
    assert "x1" not in report.hosts


async def test_variables_follow_their_precedence():
    fleet = Fleet(a={"echo **": 0})
    fleet.details["a"] = {"vars": {"two": "host", "three": "host"}}
    await fleet.run(
        load(
            "- exec: [echo, '${one}', '${two}', '${three}', '${all}', '${host}']",
            head="vars: { one: book, two: book, three: book, all: '${one}-${two}' }\n",
        ),
        vars={"three": "given"},
    )
    assert fleet.ran("a") == [["echo", "book", "host", "given", "book-host", "a"]]


async def test_scripts_get_variables_as_environment_and_keep_their_text():
    fleet = Fleet(a={"sh **": 0})
    fleet.details["a"] = {"vars": {"port": 80, "LD_PRELOAD": "/x.so", "list": ["x"], "dashed-name": "y"}}
    script = 'echo "${greeting} $port"'
    book = load(
        f"- shell: {{ action: a, script: '{script}' }}\n  env: {{ greeting: 'own ${{greeting}}' }}",
        head="vars: { greeting: hi, debug: true }\n",
    )
    await fleet.run(book)
    (spec,) = fleet.hosts["a"].specs
    assert spec.argv[3] == script
    given = dict(spec.env)
    assert len(given.pop("run")) > 10
    assert given == {
        "greeting": "own hi", "debug": "true", "port": "80", "host": "a", "tier": "all", "check": "false"
    }  # fmt: skip


async def test_an_undefined_variable_is_said_before_anything_is_contacted():
    fleet = Fleet(a={"id": 0}, b={"id": 0})
    fleet.details["a"] = {"vars": {"port": 1}}
    with pytest.raises(BadRunbook) as caught:
        await fleet.run("- exec: [id]\n- exec: [id, '${port}']\n")
    assert caught.value.message == "r.yaml:5: undefined variable 'port' (on b)"
    assert fleet.opened == []


async def test_a_step_that_never_applies_to_a_host_may_use_what_the_host_lacks():
    fleet = Fleet(a={"id": 0})
    report = await fleet.run("- exec: [id, '${prod_only}']\n  when: ${host} == z\n")
    assert statuses(report) == ["skipped"]


async def test_a_step_outside_the_runbooks_own_capabilities_is_refused_before_contact():
    fleet = Fleet(a={"id": 0, "ls": 0})
    with pytest.raises(CapabilityDenied) as caught:
        await fleet.run(
            load("- exec: [/usr/bin/id]\n- exec: [/usr/bin/ls]\n", head='capabilities: ["exec:/usr/bin/id"]\n')
        )
    assert caught.value.layer == "runbook"
    assert "line 6" in str(caught.value)
    assert fleet.opened == []


async def test_what_a_host_will_deny_is_mentioned_and_denied_there():
    fleet = Fleet(a={"id": 0})
    fleet.details["a"] = {"capabilities": ("exec:/usr/bin/id",)}
    report = await fleet.run("- exec: [/usr/bin/id]\n- write: { path: /etc/x, content: y }\n")
    assert report.notices == ["a will deny 'write /etc/x': it needs fs.write:/etc/x"]
    assert statuses(report) == ["changed", "failed"]
    assert [call[0] for call in fleet.hosts["a"].calls] == ["process"]


async def test_the_executor_holds_what_both_the_host_and_the_runbook_admit():
    fleet = Fleet(a={"id": 0})
    fleet.details["a"] = {"capabilities": ("exec:**",), "run_as": ("web",)}
    held = []
    connect = fleet.connect

    def spy(host, capabilities):
        held.append(capabilities)
        return connect(host, capabilities)

    await execute(
        load("- exec: [/usr/bin/id]\n", head='capabilities: ["exec:/usr/bin/id", "fs.read:/**"]\n'),
        fleet.inventory,
        spy,
    )
    from opsexec.capability import Requirement

    assert held[0].admits(Requirement("exec", ("/usr/bin/id",)))
    assert not held[0].admits(Requirement("exec", ("/usr/bin/ls",)))
    assert not held[0].admits(Requirement("fs.read", "/x"))
    held[0].require_user("web")


async def test_a_variable_under_a_built_in_name_is_refused():
    fleet = Fleet(a={})
    fleet.details["a"] = {"vars": {"run": "x"}}
    with pytest.raises(UsageError, match="set by the engine"):
        await fleet.run("- exec: [id]")
    with pytest.raises(UsageError):
        RunOptions(vars={"host": "x"})


SECRET = 'hunter2-"quoted"\nsecond line of it'
SECRET_BOOK = """
name: t
hosts: all
vars: { token: { from_env: TOKEN }, header: "Bearer ${token}" }
steps:
  - exec: [login]
    env: { AUTH: "${header}" }
    stdin: "${token}"
    register: out
  - write: { path: /x, content: "t=${token}" }
  - shell: { action: a, script: "echo $token" }
    allow_failure: true
  - exec: [bad]
    allow_failure: true
"""


def secret_fleet() -> Fleet:
    return Fleet(
        a=FakeHost(
            answers={
                "login": f"you said {SECRET}\n",
                "sh **": Answer(exit_code=1, stderr=f"denied {SECRET}".encode(), stdout=SECRET.encode()),
                "bad": OpsError(f"it said {SECRET}"),
            }
        )
    )


async def test_secrets_reach_the_host_and_show_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    fleet = secret_fleet()
    out = io.StringIO()
    report = await fleet.run(SECRET_BOOK, Journal(tmp_path), progress=PlainProgress(out), diff=True)
    login, script = fleet.hosts["a"].specs[:2]
    assert login.env["AUTH"] == f"Bearer {SECRET}"
    assert login.stdin == SECRET.encode()
    assert script.env["token"] == SECRET
    assert fleet.hosts["a"].content("/x") == f"t={SECRET}".encode()
    (file,) = Path(tmp_path).iterdir()
    shown = file.read_text() + out.getvalue() + json.dumps(report.as_json()) + repr(report)
    shown += json.dumps(fleet.audit.records)
    for part in ("hunter2", "quoted", "second line"):
        assert part not in shown
    assert "***" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_secret_given_by_var_stays_one(tmp_path):
    fleet = secret_fleet()
    await fleet.run(SECRET_BOOK, Journal(tmp_path), vars={"token": SECRET})
    (file,) = Path(tmp_path).iterdir()
    assert "hunter2" not in file.read_text()


async def test_a_missing_secret_is_said_before_anything_is_contacted(monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    fleet = secret_fleet()
    with pytest.raises(UsageError, match="TOKEN is not set"):
        await fleet.run(SECRET_BOOK)
    assert fleet.opened == []


async def test_a_host_variable_that_is_secret_is_kept_off_an_argv(monkeypatch):
    from opsexec.secret_source import SecretSource

    monkeypatch.setenv("TOKEN", "x")
    fleet = Fleet(a={"id": 0})
    fleet.details["a"] = {"vars": {"token": SecretSource(from_env="TOKEN")}}
    with pytest.raises(BadRunbook, match="would put a secret into argv"):
        await fleet.run("- exec: [id, '${token}']\n")


BOOK = """
- exec: [one]
- exec: [two]
  register: out
- exec: [three, "${out.stdout}"]
- exec: [four]
"""


async def test_resume_goes_on_after_the_last_good_step(tmp_path):
    fleet = Fleet(
        a={"one": 0, "two": "kept\n", "three *": [1, 0], "four": 0},
        b={"one": 0, "two": 0, "three *": 0, "four": 0},
    )
    report = await fleet.run(BOOK, Journal(tmp_path))
    assert report.exit_code == 1
    again = await fleet.run(BOOK, Journal(tmp_path), resume=report.run)
    assert again.exit_code == 0
    assert [words[0] for words in fleet.ran("a")] == ["one", "two", "three", "three", "four"]
    assert fleet.ran("a")[3] == ["three", "kept"]
    assert len(fleet.ran("b")) == 4
    assert statuses(again) == ["changed"] * 4
    assert again.run == report.run


async def test_resume_refuses_another_runbook_and_an_unknown_run(tmp_path):
    fleet = Fleet(a={"one": 1, "two": 0})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    with pytest.raises(UsageError, match="not the one"):
        await fleet.run("- exec: [two]", Journal(tmp_path), resume=report.run)
    with pytest.raises(UsageError, match="there is no run"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume="20200101-000000-abcdef")
    with pytest.raises(UsageError, match="not a run's id"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume="../../etc/passwd")


async def test_a_check_is_never_resumed_as_if_it_had_done_something(tmp_path):
    fleet = Fleet(a={"one": 0})
    report = await fleet.run("- exec: [one]", Journal(tmp_path), check=True)
    with pytest.raises(UsageError, match="was a check"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume=report.run)


async def test_a_host_that_moved_is_not_resumed(tmp_path):
    fleet = Fleet(a={"one": 1})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    moved = Inventory([InventoryHost(name="a", url="ssh://elsewhere")])
    with pytest.raises(UsageError, match="elsewhere"):
        await execute(
            load("- exec: [one]"),
            moved,
            fleet.connect,
            RunOptions(resume=report.run),
            None,
            Journal(tmp_path),
        )


async def test_resume_keeps_the_variables_it_began_with(tmp_path):
    fleet = Fleet(a={"one *": [1, 0]})
    book = "- exec: [one, '${v}']"
    report = await fleet.run(book, Journal(tmp_path), vars={"v": "1.2"})
    await fleet.run(book, Journal(tmp_path), resume=report.run)
    assert fleet.ran("a") == [["one", "1.2"]] * 2


async def test_cancelling_ends_the_step_runs_always_and_leaves_a_journal_to_resume(tmp_path):
    started = asyncio.Event()
    fleet = Fleet(a={"one": 0, "slow": [Answer(delay_s=60), 0], "clean": 0})
    book = load("name: t\nhosts: all\nsteps: [{exec: [one]}, {exec: [slow]}]\nalways: [{exec: [clean]}]\n")

    class Watch(SilentProgress):
        def on(self, event):
            if isinstance(event, StepFinished) and event.report.name == "exec one":
                started.set()

    engine = Engine(book, fleet.inventory, fleet.connect, RunOptions(), Watch(), Journal(tmp_path))
    task = asyncio.create_task(engine.run())
    await asyncio.wait_for(started.wait(), 5)
    await anyio.wait_all_tasks_blocked()
    assert len(fleet.ran("a")) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [words[0] for words in fleet.ran("a")] == ["one", "slow", "clean"]
    report = engine.report
    assert (report.exit_code, report.interrupted) == (130, True)
    assert [(s.name, s.error) for s in report.hosts["a"].steps][1] == ("exec slow", "interrupted")
    assert fleet.open == 0
    again = await fleet.run(book, Journal(tmp_path), resume=report.run)
    assert [words[0] for words in fleet.ran("a")][3:] == ["slow", "clean"]
    assert again.hosts["a"].steps[1].note == "was started before, but not finished: run again"
    assert again.exit_code == 0


async def test_cleaning_up_after_a_cancel_is_bounded(monkeypatch):
    monkeypatch.setattr("opsexec.runbook.host_run.CLEANUP_TIMEOUT_S", 0.05)
    fleet = Fleet(a={"slow": Answer(delay_s=60)})
    book = load("name: t\nhosts: all\nsteps: [{exec: [slow]}]\nalways: [{exec: [slow]}]\n")
    with anyio.move_on_after(0.05) as scope:
        await fleet.run(book)
    assert scope.cancelled_caught
    assert len(fleet.ran("a")) == 2


async def test_two_processes_never_resume_one_run(tmp_path):
    fleet = Fleet(a={"one": 1})
    report = await fleet.run("- exec: [one]", Journal(tmp_path))
    held = Journal(tmp_path)
    held.reopen(report.run)
    with pytest.raises(UsageError, match="another process"):
        await fleet.run("- exec: [one]", Journal(tmp_path), resume=report.run)
    held.close()


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
