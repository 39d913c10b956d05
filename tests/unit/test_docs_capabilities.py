"""docs/capabilities.md: its examples hold, and it names what each step needs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from opsexec.capability import SAFE_PATH, CapabilitySet, Requirement
from opsexec.secret import Secret
from opsexec.steps import (
    STEP_TYPES,
    Attachment,
    AuditRead,
    ContainerCopyIn,
    ContainerCopyOut,
    ContainerCreate,
    ContainerExec,
    ContainerInspect,
    ContainerList,
    ContainerLogs,
    ContainerRemove,
    ContainerRun,
    ContainerSignal,
    ContainerStart,
    ContainerStop,
    Events,
    Exec,
    Facts,
    GitFetch,
    GitForward,
    GitScan,
    ImageBuild,
    ImageImport,
    ImageInspect,
    ImageRemove,
    Inquire,
    LaunchdControl,
    Link,
    ListTree,
    MakeDir,
    MoveFile,
    NetworkCreate,
    NetworkRemove,
    Observe,
    PingSocket,
    PodmanRemove,
    Pull,
    Push,
    ReadFile,
    RemoveFile,
    SandboxRun,
    ScheduleAdd,
    ScheduleRemove,
    ScheduleRun,
    ScheduleSwitch,
    ServiceControl,
    ServiceDefinition,
    ServiceStatus,
    SetMode,
    Shell,
    Stat,
    Step,
    Survey,
    Tty,
    WriteFile,
)
from opsexec.steps.containers import Kind
from opsexec.steps.definitions import VERBS as DEFINITION_VERBS
from opsexec.steps.launchd import VERBS as LAUNCHD_VERBS
from opsexec.steps.questions import QUESTIONS
from opsexec.verbs import VERBS

TEXT = (Path(__file__).parents[2] / "docs/capabilities.md").read_text()
ROWS = re.findall(r"^\| (.*) \|$", TEXT, re.MULTILINE)
LOADING: dict[str, str | Secret] = {"LD_PRELOAD": "x"}
QUARANTINE = "/g/a/mirror.git/objects/q"
UPDATES = (f"{'0' * 40} {'1' * 40} refs/heads/x",)
OURS = {"a": "b"}
INNER = Attachment("inner")
ABOUT = {"": "", "path": "/a"}

EXAMPLES: tuple[Step, ...] = (
    Exec(["id"], env=LOADING, creates="/a"),
    Shell("a", "b", env=LOADING, creates="/a"),
    ReadFile("/a"),
    Stat("/a"),
    WriteFile("/a", content=""),
    RemoveFile("/a"),
    MoveFile("/a", "/b"),
    MakeDir("/a"),
    Link("/a", "b"),
    SetMode("/a", mode="0644"),
    Push("a", "/b"),
    Pull("/a", "b"),
    ServiceStatus("a"),
    ServiceControl("a", "start"),
    Facts(),
    Observe(),
    Events(),
    *(
        Inquire(
            ask=name,
            subject="system/a" if name in ("launchd.job", "launchd.disabled") else ABOUT.get(each.subject, "a"),
            number=50 if "{number}" in str(each.argv) else None,
            address="100.64.0.1" if "{address}" in each.argv else None,
        )
        for name, each in QUESTIONS.items()
    ),
    Survey(path="/a"),
    ListTree(path="/a"),
    PingSocket(path="/a"),
    *(ServiceDefinition("a", action) for action in DEFINITION_VERBS),
    *(
        LaunchdControl(
            target="system/a", action=action, path="/Library/LaunchDaemons/a.plist" if action == "bootstrap" else None
        )
        for action in LAUNCHD_VERBS
    ),
    PodmanRemove("a"),
    ContainerRun(name="aa", image="a", labels=OURS, read_only={"/a": "/a/"}, writable={"/b": "/b"}, networks=(INNER,)),
    ContainerCreate(name="aa", image="a", labels=OURS, writable={"/b": "/b"}, networks=(INNER,)),
    ContainerStart(name="aa", labels=OURS),
    ContainerStop(name="aa", labels=OURS),
    ContainerSignal(name="aa", labels=OURS, signal="SIGHUP"),
    ContainerRemove(name="aa", labels=OURS),
    ContainerExec(name="aa", labels=OURS, argv=["id"]),
    ContainerCopyIn(name="aa", labels=OURS, dest="/a"),
    ContainerCopyOut(name="aa", labels=OURS, path="/a"),
    ContainerInspect(name="aa"),
    ContainerLogs(name="aa"),
    *(ContainerList(labels=OURS, kind=kind) for kind in get_args(Kind)),
    ImageBuild(name="a", labels=OURS, dockerfile="FROM b", context="/c/", network="inner"),
    ImageImport(name="a", labels=OURS),
    ImageInspect(name="a"),
    ImageRemove(name="a", labels=OURS),
    NetworkCreate(name="inner", labels=OURS),
    NetworkRemove(name="inner", labels=OURS),
    SandboxRun("a", ["id"], read_only={"/a": "/a/"}, writable={"/b": "/b"}, network=True),
    GitFetch(repository="a", place="/g/a"),
    GitScan(repository="a", place="/g/a", quarantine=QUARANTINE, updates=UPDATES, scanner="/g"),
    GitForward(repository="a", place="/g/a", quarantine=QUARANTINE, updates=UPDATES),
    Tty(["id"], env=LOADING),
    ScheduleAdd("a", "* * * * *", steps=(Exec(["id"]),)),
    ScheduleRemove("a"),
    ScheduleSwitch("a", True),
    ScheduleRun("a"),
    AuditRead("verify"),
)


def requirement(text: str) -> Requirement:
    verb, _, resource = text.partition(":")
    return Requirement(verb, tuple(shlex.split(resource)) if VERBS[verb].kind == "argv" else resource)


def examples() -> list[list[str]]:
    cells = [[cell.strip().strip("`") for cell in row.split(" | ")] for row in ROWS]
    return [row for row in cells if len(row) == 3 and ":" in row[0]]


@pytest.mark.parametrize(("grant", "admitted", "refused"), examples())
def test_an_example_holds(grant: str, admitted: str, refused: str) -> None:
    held = CapabilitySet.of(grant)
    assert held.admits(requirement(admitted))
    assert not held.admits(requirement(refused))


def test_there_are_examples() -> None:
    assert len(examples()) > 10


def test_every_kind_of_step_has_an_example_here() -> None:
    assert {type(step) for step in EXAMPLES} == set(STEP_TYPES)


@pytest.mark.parametrize("step", EXAMPLES, ids=lambda step: type(step).__name__)
def test_the_table_says_what_a_step_needs(step: Step) -> None:
    (row,) = [row for row in ROWS if f"`{type(step).__name__}`" in row.partition(" | ")[0]]
    for need in step.requires():
        assert f"`{need.verb}`" in row.partition(" | ")[2]


def test_the_places_of_bare_names_are_named_in_order() -> None:
    assert ", ".join(f"`{place}`" for place in SAFE_PATH) in " ".join(TEXT.split())
