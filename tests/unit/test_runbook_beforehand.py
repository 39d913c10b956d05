"""Said before the first host of a run is contacted: a source that isn't there, a variable that nobody uses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from opsexec.errors import BadRunbook
from opsexec.runbook import Journal, this_machine
from tests.parts.runbook_fleet import Fleet, statuses

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", [False, True])
async def test_a_push_of_what_is_not_there_is_said_before_anything_is_done(tmp_path: Path, check: bool) -> None:
    fleet = Fleet(a={"id": 0})
    book = f"- exec: [id]\n- push: {{ src: '{tmp_path}/${{host}}.tar', dest: /srv/x }}\n"
    with pytest.raises(BadRunbook) as caught:
        await fleet.run(book, check=check)
    assert caught.value.message == (
        f"r.yaml:5: can't read {tmp_path}/a.tar on this machine: No such file or directory (on a)"
    )
    assert fleet.opened == []


PUSH = "- push: {{ src: {missing}, dest: /srv/x }}\n"


@pytest.mark.parametrize(
    "book",
    [
        PUSH + "  allow_failure: true\n",
        PUSH + "  when: changed\n",
        PUSH + "  when: ${{host}} == b\n",
        PUSH + "  tags: [other]\n- exec: [id]\n  tags: [this]\n",
        "- exec: [id]\n  register: made\n- push: {{ src: '{missing}-${{made.stdout}}', dest: /srv/x }}\n",
        "- pull: {{ src: /srv/y, dest: {missing} }}\n" + PUSH,
    ],
    ids=["may fail", "may not come", "not here", "not among the tags", "of a register", "pulled before"],
)
async def test_a_source_that_the_run_may_yet_make_or_do_without_stops_nothing(tmp_path: Path, book: str) -> None:
    fleet = Fleet(a={"id": 0})
    fleet.down = {"a"}  # reached: the check beforehand let it go
    tags = ["this"] if "this" in book else []
    report = await fleet.run(book.format(missing=tmp_path / "missing"), tags=tags)
    assert report.stopped is None


async def test_a_step_on_this_machine_may_make_the_source(tmp_path: Path) -> None:
    fleet = Fleet(a={"id": 0})
    fleet.urls = {"a": "local:"}
    report = await fleet.run("- exec: [id]\n" + PUSH.format(missing=tmp_path / "missing"))
    assert statuses(report) == ["changed", "ok"]  # the fake host copies nothing


@pytest.mark.parametrize(
    ("url", "configured"),
    [
        ("ssh://me", "HostName 127.0.0.1"),
        ("agent+ssh://root@me:2201", "HostName localhost"),
        ("ssh://me", "HostName box.localhost"),
        (f"ssh://{socket.gethostname()}", ""),
        ("ssh://[::ffff:127.0.0.9]", ""),
        ("ssh://0.0.0.0", ""),
        ("ssh://named-here", ""),
    ],
)
async def test_this_machine_by_another_name_may_make_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, configured: str
) -> None:
    (tmp_path / "config").write_text(f"Host me\n  {configured}\n")
    (tmp_path / "hosts").write_text("# mine\n127.0.0.1 localhost Named-Here # and so on\n")
    monkeypatch.setattr(this_machine, "HOSTS", str(tmp_path / "hosts"))
    fleet = Fleet(a={"id": 0})
    fleet.urls = {"a": url}
    fleet.details = {"a": {"config_files": (str(tmp_path / "config"),)}}
    report = await fleet.run("- exec: [id]\n" + PUSH.format(missing=tmp_path / "missing"))
    assert statuses(report) == ["changed", "ok"]


@pytest.mark.parametrize("url", ["ssh://me", "ssh://192.0.2.7", "ssh://localhost.example", "tailnet://127.0.0.1"])
async def test_another_machine_makes_no_source_here(tmp_path: Path, url: str) -> None:
    (tmp_path / "config").write_text("Host me\n  HostName 192.0.2.7\n")
    fleet = Fleet(a={"id": 0})
    fleet.urls = {"a": url}
    fleet.details = {"a": {"config_files": (str(tmp_path / "config"),)}}
    with pytest.raises(BadRunbook, match="No such file"):
        await fleet.run("- exec: [id]\n" + PUSH.format(missing=tmp_path / "missing"))


async def test_a_run_that_is_resumed_needs_no_source_of_what_is_done(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    fleet = Fleet(a={"id": [1, 0]})
    book = PUSH.format(missing=source) + "- exec: [id]\n"
    journal = Journal(tmp_path / "runs")
    report = await fleet.run(book, journal)
    source.unlink()
    again = await fleet.run(book, Journal(tmp_path / "runs"), resume=report.run)
    assert again.stopped is None


@pytest.mark.parametrize(
    ("step", "message", "hint"),
    [
        ("exec: [id]\n  timeout: ${n}", "timeout -3.0 is not a positive number of seconds (on a)", "like timeout: 30"),
        ("network.create: {name: my-net, labels: {a: b}, internal: '${off}'}", "leads out", "internal: true, or"),
        ("container.create: {name: cc, image: 'i:1', labels: {a: b}, networks: ['${n}']}", "'-3'", "network.create"),
    ],
)
async def test_what_a_variable_makes_wrong_is_told_in_the_runbooks_words(step: str, message: str, hint: str) -> None:
    fleet = Fleet(a={"id": 0})
    with pytest.raises(BadRunbook) as caught:
        await fleet.run(f"name: t\nhosts: all\nvars: {{ n: '-3', off: false }}\nsteps:\n- {step}\n")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert not {"timeout_s", "NetworkCreate", "True"} & set(f"{caught.value.message} {caught.value.hint}".split())


async def notices(fleet: Fleet, book: str, **given: str) -> list[str]:
    return list((await fleet.run(book, vars=given)).notices)


async def test_a_var_that_nothing_uses_is_named_with_what_was_meant() -> None:
    fleet = Fleet(a={"echo *": 0, "id": 0})
    book = "- exec: [echo, '${version}']\n"
    (said,) = await notices(fleet, book, version="1", verison="2")
    assert said == "--var verison: no part of the runbook uses it (did you mean 'version'?)"
    (said,) = await notices(fleet, "- exec: [id]\n", version="1")
    assert said == "--var version: no part of the runbook uses it (none is defined)"


@pytest.mark.parametrize(
    "book",
    [
        "vars: { v: 1 }\nsteps: [{ exec: [id] }]\nname: t\nhosts: all\n",
        "- exec: [id]\n  when: ${v} == 2\n",
        "- assert: { that: true == true, message: 'so ${v}' }\n",
        "- shell: { action: a, script: 'echo $v' }\n",
        "vars: { w: 'a-${v}' }\nsteps: [{ exec: [id] }]\nname: t\nhosts: all\n",
    ],
    ids=["declared", "condition", "message", "script", "another variable"],
)
async def test_a_var_that_something_uses_is_not_spoken_of(book: str) -> None:
    assert await notices(Fleet(a={"id": 0, "sh **": 0, "/bin/sh **": 0}), book, v="2") == []


async def test_a_var_of_any_host_of_the_inventory_is_known() -> None:
    fleet = Fleet(a={"id": 0}, b={"id": 0})
    fleet.details["b"] = {"vars": {"v": "1"}}
    assert await notices(fleet, "- exec: [id]\n", v="2") == []
