"""What is made from a declaration: bounded, isolated, quoted, and nothing at all from what can't be quoted."""

from __future__ import annotations

import plistlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services.artifact import Places, auth_files, require_generated
from agent.services.command_line import container_runs, script_commands
from agent.services.declaration import Declaration
from agent.services.launchd_plist import make_plist
from agent.services.plist_lint import lint_plist
from agent.services.receipt import MARKER
from agent.services.restart_limits import why_unbounded
from agent.services.systemd_unit import BUDGETS, limits, make_unit
from agent.services.unit_file import parse_unit
from agent.services.wrapper_script import make_wrapper
from opsexec.errors import UsageError
from tests.conftest import require

SYSTEM = Places.of("web", user=False, home="/root")
BOXED = {"name": "web", "runtime": "podman", "image": "localhost/web:1"}
NATIVE = {"name": "web", "command": ["/bin/sleep", "100"]}


def declared(**more) -> Declaration:
    return Declaration.model_validate(more)


def test_start_limits_stand_where_systemd_reads_them():
    found = parse_unit(make_unit(declared(**NATIVE), SYSTEM).data, "web.service")
    by_key = {each.key: each for each in found.settings}
    assert (by_key["StartLimitIntervalSec"].section, by_key["StartLimitBurst"].section) == ("Unit", "Unit")
    assert by_key["ExecCondition"].value.endswith(" ready")
    assert not found.odd


@given(st.integers(0, 3600), st.sampled_from(["manual", "bounded", "supervised"]))
def test_no_declared_number_of_restarts_is_unbounded(count, restart):
    found = limits(declared(**NATIVE, lifecycle={"max_restarts_per_hour": count, "restart": restart}))
    assert why_unbounded(found) is None
    assert found.per_hour <= count


def test_the_first_line_says_whose_it_is():
    for each in (make_unit(declared(**NATIVE), SYSTEM), make_wrapper(declared(**NATIVE), SYSTEM)):
        assert (MARKER + "web").encode() in each.data.split(b"\n")[:2]


def test_a_container_runs_isolated_from_ambient_credentials():
    text = make_wrapper(declared(**BOXED), SYSTEM).data.decode()
    (run,) = [run for words in script_commands(text) for run in container_runs(words) if run.verb == "run"][:1]
    assert (run.pull, run.image) == ("never", "localhost/web:1")
    assert run.authfile == "/var/lib/ops-agent/services/web/auth/auth.json"
    assert "export DOCKER_CONFIG=/var/lib/ops-agent/services/web/auth/docker" in text
    assert "export REGISTRY_AUTH_FILE=/var/lib/ops-agent/services/web/auth/auth.json" in text
    assert {each.mode for each in auth_files(declared(**BOXED), SYSTEM)} == {"0600"}


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1), max_size=4))
def test_words_of_a_command_reach_the_program_as_they_were_declared(words):
    text = make_wrapper(declared(name="web", command=["/bin/echo", *words]), SYSTEM).data.decode()
    script = text.replace("exec /bin/echo", "exec printf '%s\\0' x", 1)
    done = subprocess.run(["/bin/sh", "-c", script, "web", "run"], capture_output=True, timeout=20, check=True)
    assert done.stdout.decode() == "\0".join(["x", *words]) + "\0"


@pytest.mark.parametrize(
    "more",
    [
        {**NATIVE, "logs": {"stdout": "/var/log/a\nExecStartPre=/bin/evil"}},
        {**NATIVE, "logs": {"stderr": "relative"}},
        {**NATIVE, "logs": {"stdout": "/var/log/%h"}},
        {"name": "web", "command": ["sleep"]},
        {"name": "web", "command": ["/bin/a b"]},
        {"name": "web", "command": []},
        {**BOXED, "image": "--privileged"},
        {**BOXED, "image": "a;b"},
        {**BOXED, "container_name": "a b"},
        {**BOXED, "podman": {"connection": "--x"}},
        {**NATIVE, "name": "web@one"},
        {**NATIVE, "runtime": "systemd"},
    ],
    ids=repr,
)
def test_nothing_is_made_of_what_would_mean_something_else(more):
    with pytest.raises(UsageError):  # noqa: PT012 - which of the two refuses is not the promise
        require_generated(declared(**more))
        make_unit(declared(**more), SYSTEM)


def test_an_owner_can_not_add_lines_to_the_unit():
    owner = {"project": "x\nExecStartPre=/bin/evil", "component": "%i \\"}
    found = parse_unit(make_unit(declared(**NATIVE, owner=owner), SYSTEM).data, "web.service")
    assert not [each for each in found.settings if each.key == "ExecStartPre"]
    assert not found.odd


@pytest.mark.parametrize(
    ("kind", "more"),
    [("native", NATIVE), ("podman", BOXED), ("user", {**NATIVE, "scope": "user"}),
     ("user-podman", {**BOXED, "scope": "user"})],
)  # fmt: skip
def test_a_generated_unit_is_within_its_budget_and_verified_without_a_word(kind, more, tmp_path):
    require("systemd-analyze", "needs systemd-analyze")
    places = Places.of("web", user=False, home="/root")._replace(wrappers=str(tmp_path))
    wrapper = make_wrapper(declared(**more), places)
    (tmp_path / "web").write_bytes(wrapper.data)
    (tmp_path / "web").chmod(0o755)
    unit = tmp_path / "web.service"
    unit.write_bytes(make_unit(declared(**more), places).data)
    assert subprocess.run(["sh", "-n", str(tmp_path / "web")], check=False).returncode == 0
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={round(BUDGETS[kind] * 10)}"]
    done = subprocess.run([*argv, str(unit)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("more", [NATIVE, BOXED, {**NATIVE, "scope": "user"}])
def test_a_generated_plist_passes_the_projects_own_lint(more):
    places = Places.of("web", user=more.get("scope") == "user", home="/Users/a", darwin=True)
    made = make_plist(declared(**more), places, "/Users/a")
    assert lint_plist(made.data, made.path) == []
    job = plistlib.loads(made.data)
    assert job["ThrottleInterval"] * declared(**more).lifecycle.max_restarts_per_hour >= 3600
    assert job["ProgramArguments"] == [places.wrapper("web"), "run"]
    assert b"managed by ops-agent: service web" in made.data


def test_keep_alive_is_made_as_declared_and_flagged():
    kept = declared(**NATIVE, lifecycle={"keep_alive": True})
    assert b"\nRestart=always\n" in make_unit(kept, SYSTEM).data
    assert lint_plist(make_plist(kept, SYSTEM, "/root").data, "org.ops-agent.web.plist") != []


def test_a_wrapper_for_macos_has_nothing_that_only_gnu_has():
    from agent.services.checks.lint_files import gnu_only

    for more in (NATIVE, BOXED):
        assert gnu_only(make_wrapper(declared(**more), SYSTEM, darwin=True).data.decode()) == []


def test_the_other_names_are_the_same_program_and_know_every_command():
    import tomllib
    from pathlib import Path

    from agent.cli import _parser
    from agent.services import change_cli

    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["sourceos"] == scripts["sourceos-agent"] == scripts["ops-agent"]
    for command in change_cli.COMMANDS:
        words = [command] if command == "list" else [command, "web"]
        parsed = _parser().parse_args([*words, "--json"])
        assert getattr(parsed, "execute", False) is False, "nothing is changed unless it is asked for"
