"""Runbooks that mean harm, and what a host's words may do to the machine that runs one."""

from __future__ import annotations

import contextlib
import io
import textwrap
import time

import pytest

from opsexec.errors import BadRunbook
from opsexec.runbook import Runbook
from opsexec.runbook.grants import least_capabilities
from opsexec.runbook.model import Template
from opsexec.runbook.progress import Notice, PlainProgress, StepFinished
from opsexec.runbook.reference import Reference
from opsexec.runbook.rendering import render_step
from opsexec.runbook.report import StepReport
from opsexec.runbook.results import registered
from opsexec.runbook.variables import Scope
from opsexec.steps import Pull, Push

HEAD = "name: t\nhosts: all\nsteps: [{ exec: [/bin/true, '${v0}'] }]\n"


def scope(said: dict[str, object] | None = None, **variables: object) -> Scope:
    made = Scope(runbook=variables, host={}, overrides={}, builtins={}, secrets={})
    made.registered = {} if said is None else {"out": {**registered(None), **said}}
    return made


def test_variables_that_hold_each_other_many_times_are_no_bomb():
    texts = {f"v{n}": f"${{v{n + 1}}}" * 10 for n in range(20)} | {"v20": "x"}
    lists = {f"v{n}": [f"${{v{n + 1}}}"] * 10 for n in range(20)} | {"v20": "x"}
    begun = time.monotonic()
    for variables in (texts, lists):
        with pytest.raises(BadRunbook, match="over"):
            scope(**variables).lookup(Reference("v0", ()))
    lines = "".join(f"  {name}: '{text}'\n" for name, text in texts.items())
    assert least_capabilities(Runbook.parse(f"{HEAD}vars:\n{lines}", "r.yaml")) == ["exec:/bin/true *"]
    assert time.monotonic() - begun < 5


NESTS = {
    "[": "[" * 400_000,
    "-": "\n  " + "- " * 200_000,
    "?": "\n" + "? " * 200_000,
    "{": "{a: " * 100_000,
    "&": "\n" + "".join(f"  a{n}: &b{n} [*b{n - 1}]\n" if n else "  a0: &b0 [x]\n" for n in range(20_000)),
    '"': '"' + "x\n   " * 90_000 + '"',
    ",": "[" + "[]," * 100_000 + "]",
}


@pytest.mark.parametrize("nest", NESTS)
def test_no_file_of_half_a_megabyte_takes_long(nest):
    begun = time.process_time()
    with contextlib.suppress(BadRunbook):
        Runbook.parse(f"name: t\nhosts: all\nsteps: [{{ exec: [/bin/true] }}]\nvars:\n a: {NESTS[nest]}\n", "r.yaml")
    assert time.process_time() - begun < 20


PATHS = ["../../root/.ssh/id_ed25519", "/etc/shadow", "a/b", "..", ".", "", "a/"]


@pytest.mark.parametrize("path", PATHS)
def test_a_host_can_not_choose_which_file_of_the_caller_it_gets_or_writes(path):
    hostile = scope({"stdout": path})
    for template in (
        Template(Push, "/srv/runbook", src="./site/${out.stdout}", dest="/srv/site"),
        Template(Push, "/srv/runbook", src="${out.stdout}", dest="/srv/site"),
        Template(Pull, "/srv/runbook", src="/var/log/app", dest="logs/${out.stdout}"),
    ):
        with pytest.raises(BadRunbook, match="a host said"):
            render_step(template, hostile)


def test_a_host_may_give_a_name_to_a_path_and_the_runbook_any_path():
    named = Template(Pull, "/srv/runbook", src="/var/log/app", dest="logs/${out.stdout}.log")
    pull = render_step(named, scope({"stdout": "web1"}))
    assert isinstance(pull, Pull)
    assert pull.dest == "/srv/runbook/logs/web1.log"
    own = Template(Push, "/srv/runbook", src="${tree}/", dest="/srv/site")
    push = render_step(own, scope(tree="../site"))
    assert isinstance(push, Push)
    assert push.src == "/srv/site/"


ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@pytest.mark.parametrize("place", ["name: '%s'", "tiers: [{ name: '%s', hosts: all }]", "tiers: [{ hosts: '%s' }]"])
@pytest.mark.parametrize("trick", ["\\u001b[2J", "\\u202e", "\\u009b2J", "\\r"])
def test_a_name_that_people_read_is_printable(place, trick):
    text = place.replace("'", '"') % f"a{trick}"
    step = "- exec: [/bin/true]\n"
    if place.startswith("name"):
        text, step = "", f"- exec: [/bin/true]\n  {text}\n"
    with pytest.raises(BadRunbook):
        Runbook.parse(f"name: t\nhosts: all\nsteps:\n{textwrap.indent(step, '  ')}{text}\n", "r.yaml")


def test_no_line_that_is_shown_drives_the_terminal():
    out = io.StringIO()
    progress = PlainProgress(out)
    report = StepReport(name=f"exec {ESCAPE}", status="failed", error=ESCAPE, note=ESCAPE)
    progress.on(StepFinished("web1", "steps/1", report, diff=f"+{ESCAPE}\n"))
    progress.on(Notice(ESCAPE))
    assert out.getvalue().replace("\n", "").isprintable()
