"""Quadlet files key by key for the podman that is there, and Type= against what a unit does."""

from __future__ import annotations

import pytest

from agent.services.checks.lint_quadlet import judge_quadlet
from agent.services.checks.lint_unit import type_mismatches
from agent.services.command_line import container_runs, split_exec
from agent.services.unit_file import Unit, parse_unit
from tests.unit.test_doctor_engine import host, look

pytestmark = pytest.mark.anyio
PATH = "/etc/containers/systemd/web.container"
GOOD = "[Unit]\nDescription=Web\n[Container]\nImage=localhost/web:1\nPull=never\nExec=a\n[Install]\nWantedBy=a.target\n"


def said(text: str | bytes, version=(4, 9, 3)) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [each.summary for each in judge_quadlet(parse_unit(data, PATH), version)]


def test_a_file_this_podman_takes_has_nothing_wrong():
    assert said(GOOD) == []


@pytest.mark.parametrize(
    ("line", "version", "words"),
    [("Pull=never", (4, 4, 1), "Pull= takes podman 4.6, here is 4.4.1"), ("Pod=a.pod", (4, 9, 3), "takes podman 5.0"),
     ("Memory=1g", (5, 4), "takes podman 5.5"), ("Imag=x", (5, 8), "meant is Image="),
     ("Frobnicate=1", (5, 8), "unknown key Frobnicate="), ("no setting", (5, 8), "neither a section nor a setting")],
)  # fmt: skip
def test_a_key_this_podman_does_not_take_is_told_with_what_would(line, version, words):
    found = said(f"[Container]\nImage=localhost/web:1\n{line}\n", version)
    assert len(found) == 1
    assert words in found[0]


def test_a_podman_newer_than_the_table_may_know_more_keys():
    (one,) = judge_quadlet(parse_unit(b"[Container]\nImage=x\nFrobnicate=1\n", PATH), (6, 1))
    assert one.verdict == "warn"


@pytest.mark.parametrize("text", ["", "[Container]\n", "[Container]\nImage=\n", b"\0\xff" * 50, "[Service]\nImage=x\n"])
def test_what_names_no_image_fails(text):
    assert said(text)


@pytest.mark.parametrize(
    ("version", "content", "verdict"),
    [("4.9.0", GOOD, "pass"), ("4.3.1", GOOD, "fail"), ("4.4.1", GOOD, "fail"), ("4.9.0", b"\0" * 99, "fail"),
     ("4.9.0", b"a" * (2 << 20), "unknown")],
    ids=["good", "no quadlet", "old", "binary", "huge"],
)  # fmt: skip
async def test_the_file_of_a_service_is_judged_by_the_podman_of_the_host(version, content, verdict):
    answers = {"podman version --format json": f'{{"Client":{{"Version":"{version}"}}}}'}
    found = await look(host(answers, {PATH: content}), only=["lint.quadlet"])
    assert found["lint.quadlet"].verdict == verdict


@pytest.mark.parametrize(
    ("settings", "words"),
    [("Type=forking\nExecStart=/bin/a", "without PIDFile="), ("Type=dbus\nExecStart=/bin/a", "without BusName="),
     ("Type=fork\nExecStart=/bin/a", "Type=fork is none"),
     ("Type=oneshot\nRestart=always\nExecStart=/bin/a", "after every success"),
     ("ExecStart=/usr/bin/podman run -d --rm localhost/a", "detached container")],
)  # fmt: skip
def test_a_type_that_says_something_else_than_the_unit_does_is_told(settings, words):
    unit = Unit([parse_unit(f"[Service]\n{settings}\n".encode(), "/a")])
    runs = [run for each in unit.commands() for run in container_runs(split_exec(each.value)[1])]
    (one,) = type_mismatches(unit, runs)
    assert words in one


@pytest.mark.parametrize(
    "settings",
    ["ExecStart=/bin/a", "Type=forking\nPIDFile=/run/a.pid\nExecStart=/bin/a", "BusName=a.b\nExecStart=/bin/a",
     "ExecStart=/usr/bin/podman run localhost/a serve -d",
     "Type=oneshot\nExecStart=/bin/a",
     "Type=notify\nExecStart=/usr/bin/podman run -d localhost/a"],
)  # fmt: skip
def test_a_type_that_fits_is_not_talked_about(settings):
    unit = Unit([parse_unit(f"[Service]\n{settings}\n".encode(), "/a")])
    runs = [run for each in unit.commands() for run in container_runs(split_exec(each.value)[1])]
    assert type_mismatches(unit, runs) == []
