"""Which value a variable has, who is granted what, and where a secret shows; over the shipped fake host."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from opsexec.errors import (
    BadRunbook,
    CapabilityDenied,
    OpsError,
    UsageError,
)
from opsexec.runbook import (
    Journal,
    PlainProgress,
    RunOptions,
    execute,
)
from opsexec.testing import Answer, FakeHost
from tests.parts.runbook_fleet import Fleet, load, statuses

pytestmark = pytest.mark.anyio


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


async def test_a_list_that_a_script_names_is_told_to_reach_it_not():
    """`for p in $packages` over a list does nothing, and the step succeeds."""
    fleet = Fleet(a={"/bin/sh **": 0, "id": 0})
    report = await fleet.run(
        load(
            """
            - exec: [id]
              register: who
            - shell: { action: t.install, script: "for p in $packages; do echo $p ${who} $text; done" }
            - shell: { action: t.own, script: "empty=1; for gone in a; do echo $empty $gone $packages; done" }
              env: { packages: "${text}" }
            """,
            head="vars: { packages: [curl, git], text: hi, empty: null, gone: [x] }\n",
        )
    )
    assert report.ok
    told = "step 'shell t.install': no ${} reaches its script, only text, numbers and bools do (use env)"
    assert report.notices == [told.format("packages"), told.format("who")]
