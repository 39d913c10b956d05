"""A Step needs what its fields say, travels whole, and shows no secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.capability import CapabilitySet, Requirement, plain_argv
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
    decode_step,
    encode_step,
    redact,
)
from opsexec.steps.observe import FACT_NAMES, OBSERVE_NAMES

HUSH = "correct-horse-battery"
OURS = {"test.of": "steps"}
INNER = Attachment("inner", ipv4="10.89.1.2", aliases=("web",))
PUSHED: dict[str, Any] = {
    "quarantine": "/g/a/mirror.git/./objects/incoming",
    "updates": (f"{'0' * 40} {'1' * 40} refs/heads/x",),
}

ONE_OF_EACH: dict[type[Step], tuple[Step, list[str]]] = {
    Exec: (Exec(["/usr/bin/../bin/id", "-u"]), ["exec:/usr/bin/id -u"]),
    Shell: (Shell("act", "true"), [f"shell:act@sha256:{Shell('act', 'true').digest}"]),
    ReadFile: (ReadFile(path="/a/../b"), ["fs.read:/b"]),
    Stat: (Stat(path="/a//b/."), ["fs.read:/a/b"]),
    WriteFile: (WriteFile(path="/a/b", content="x"), ["fs.write:/a/b"]),
    RemoveFile: (RemoveFile(path="/a/b"), ["fs.remove:/a/b"]),
    MoveFile: (MoveFile("/a/../b", "/c/d/."), ["fs.read:/b", "fs.remove:/b", "fs.write:/c/d"]),
    MakeDir: (MakeDir(path="/a/b"), ["fs.write:/a/b"]),
    Link: (Link(path="/a/b", target="/etc/shadow"), ["fs.write:/a/b"]),
    SetMode: (SetMode(path="/a/b", mode="0600"), ["fs.write:/a/b"]),
    Push: (Push(src="./x", dest="/a/../b/"), ["sync.push:/b"]),
    Pull: (Pull(src="/a/../b/", dest="./x"), ["sync.pull:/b"]),
    ServiceStatus: (ServiceStatus(name="web"), ["service.read:web"]),
    ServiceControl: (ServiceControl(name="web", action="stop"), ["service.control:web"]),
    Facts: (Facts(names=("os", "cpu")), ["facts:os", "facts:cpu"]),
    Observe: (Observe(names=("load",)), ["observe:load"]),
    Events: (Events(names=("runs",)), ["observe:runs"]),
    Inquire: (Inquire(ask="systemd.unit", subject="web.service"), ["service.read:web.service"]),
    Survey: (Survey(path="/etc/../srv"), ["fs.read:/srv"]),
    ListTree: (ListTree(path="/etc/../srv"), ["fs.read:/srv"]),
    SandboxRun: (SandboxRun("a", ["/bin/id"]), ["sandbox.run:a"]),
    ServiceDefinition: (ServiceDefinition("web.service", "mask"), ["service.quarantine:web.service"]),
    LaunchdControl: (
        LaunchdControl(target="system/a.b", action="bootstrap", path="/Library/LaunchDaemons/../LaunchDaemons/x.plist"),
        ["service.control:system/a.b", "fs.read:/Library/LaunchDaemons/x.plist"],
    ),
    PodmanRemove: (PodmanRemove("web"), ["container.remove:web"]),
    ContainerRun: (
        ContainerRun(
            name="web", image="a:1", labels=OURS, read_only={"/i": "/h/"}, writable={"/w": "/x"}, networks=(INNER,)
        ),
        ["container.run:web", "image.read:a:1", "network.join:inner", "fs.read:/h/**", "fs.read:/x", "fs.write:/x"],
    ),
    ContainerCreate: (
        ContainerCreate(name="web", image="a:1", labels=OURS),
        ["container.run:web", "image.read:a:1"],
    ),
    ContainerStart: (ContainerStart(name="web", labels=OURS), ["container.run:web"]),
    ContainerStop: (ContainerStop(name="web", labels=OURS), ["container.remove:web"]),
    ContainerSignal: (ContainerSignal(name="web", labels=OURS, signal="SIGHUP"), ["container.remove:web"]),
    ContainerRemove: (ContainerRemove(name="web", labels=OURS), ["container.remove:web"]),
    ContainerExec: (ContainerExec(name="web", labels=OURS, argv=["id"]), ["container.exec:web"]),
    ContainerCopyIn: (ContainerCopyIn(name="web", labels=OURS, dest="/srv"), ["container.copy:web"]),
    ContainerCopyOut: (ContainerCopyOut(name="web", labels=OURS, path="/srv"), ["container.copy:web"]),
    ContainerInspect: (ContainerInspect(name="web"), ["container.read:web"]),
    ContainerLogs: (ContainerLogs(name="web"), ["container.read:web"]),
    ContainerList: (ContainerList(labels=OURS, names="web-*"), ["container.read:web-*"]),
    ImageBuild: (
        ImageBuild(name="a:1", labels=OURS, dockerfile="FROM b:2\n", context="/c/", network="outer"),
        ["image.build:a:1", "image.read:b:2", "network.join:outer", "fs.read:/c/**"],
    ),
    ImageImport: (ImageImport(name="a:1", labels=OURS), ["image.build:a:1"]),
    ImageInspect: (ImageInspect(name="a:1"), ["image.read:a:1"]),
    ImageRemove: (ImageRemove(name="a:1", labels=OURS), ["image.build:a:1"]),
    NetworkCreate: (NetworkCreate(name="inner", labels=OURS), ["network.manage:inner"]),
    NetworkRemove: (NetworkRemove(name="inner", labels=OURS), ["network.manage:inner"]),
    PingSocket: (PingSocket(path="/run//p.sock"), ["fs.read:/run/p.sock", "container.read:podman"]),
    GitFetch: (GitFetch(repository="a", place="/g/./a"), ["git.fetch:a", "fs.read:/g/a/**", "fs.write:/g/a/**"]),
    GitScan: (
        GitScan(repository="a", place="/g/a", scanner="/b/gitleaks", **PUSHED),
        ["git.scan:a", "fs.read:/g/a/**", "exec:/b/gitleaks stdin"],
    ),
    GitForward: (GitForward(repository="a", place="/g/a", **PUSHED), ["git.forward:a", "fs.read:/g/a/**"]),
    Tty: (Tty(argv=("/bin/bash", "-l")), ["tty:/bin/bash -l"]),
    ScheduleAdd: (
        ScheduleAdd("a", "0 3 * * *", steps=(Exec(["/bin/id"]), WriteFile("/a", content="x"), Exec(["/bin/id"]))),
        ["schedule.manage:a", "exec:/bin/id", "fs.write:/a"],
    ),
    ScheduleRemove: (ScheduleRemove("a"), ["schedule.manage:a"]),
    ScheduleSwitch: (ScheduleSwitch("a", True), ["schedule.manage:a"]),
    ScheduleRun: (ScheduleRun("a"), ["schedule.manage:a"]),
    AuditRead: (AuditRead("show", run="80f2"), ["audit.read:show"]),
}


def test_every_step_type_stands_here():
    assert set(ONE_OF_EACH) == set(STEP_TYPES)


@pytest.mark.parametrize("kind", STEP_TYPES)
def test_what_a_step_needs_is_derived_from_its_fields(kind):
    step, needs = ONE_OF_EACH[kind]
    assert [str(need) for need in step.requires()] == needs
    assert CapabilitySet.of(*needs).admits(step.requires()[0])


@pytest.mark.parametrize("kind", STEP_TYPES)
def test_a_step_arrives_as_it_was_sent(kind):
    step, _ = ONE_OF_EACH[kind]
    assert decode_step(encode_step(step)) == step
    assert type(decode_step(encode_step(step))) is kind


@pytest.mark.parametrize("kind", STEP_TYPES)
def test_a_step_can_not_be_changed(kind):
    step, _ = ONE_OF_EACH[kind]
    with pytest.raises(AttributeError):
        step.run_as = "root"  # type: ignore[misc]  # that it can't be set is what is tested


@pytest.mark.parametrize("kind", STEP_TYPES)
def test_a_redacted_step_is_plain_json_with_its_type(kind):
    step, _ = ONE_OF_EACH[kind]
    shown = redact(step)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["type"] == kind.__struct_config__.tag


SECRET_STEPS = [
    Exec(["/usr/bin/id"], env={"TOKEN": Secret(HUSH)}, stdin=Secret(HUSH)),
    Shell("act", "true", env={"TOKEN": Secret(HUSH)}, stdin=Secret(HUSH)),
    WriteFile(path="/a", content=Secret(HUSH)),
    Tty(argv=("/bin/sh",), env={"TOKEN": Secret(HUSH)}),
]


@pytest.mark.parametrize("step", SECRET_STEPS)
def test_a_secret_travels_and_shows_nowhere_else(step):
    assert HUSH.encode() in encode_step(step)
    assert decode_step(encode_step(step)) == step
    for shown in (repr(step), str(step), f"{step}", json.dumps(redact(step)), repr(step.requires())):
        assert HUSH not in shown


def test_a_secrets_digest_is_not_recorded_since_short_ones_can_be_guessed():
    assert redact(WriteFile(path="/a", content=Secret("1234")))["content"] == "***"
    assert redact(WriteFile(path="/a", content="1234"))["content"]["bytes"] == 4


def test_an_environments_values_are_not_recorded():
    assert redact(Exec(["/usr/bin/id"], env={"B": "hidden", "A": "x"}))["env"] == ["A", "B"]


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "PYTHONPATH", "GIT_SSH_COMMAND", "IFS", "PERL5OPT"]
)
def test_a_variable_that_decides_which_code_runs_is_a_need_of_its_own(name):
    for step in (Exec(["/bin/ls"], env={name: "x"}), Tty(argv=("/bin/sh",), env={name: "x"})):
        assert Requirement("env", name) in step.requires()
    assert len(Exec(["/bin/ls"], env={"GREETING": "x"}).requires()) == 1


def test_looking_for_a_file_is_a_need_of_its_own():
    assert Requirement("fs.read", "/b") in Exec(["/bin/ls"], creates="/a/../b").requires()


def test_the_whole_host_as_a_tree_is_a_need_that_its_grant_admits():
    needs = SandboxRun("a", ["/bin/id"], writable={"/host": "/"}).requires()
    assert [str(need) for need in needs] == ["sandbox.run:a", "fs.read:/**", "fs.write:/**"]
    assert all(CapabilitySet.of("fs.*:/**", "sandbox.run:a").admits(need) for need in needs)


def test_all_names_are_needed_where_none_is_named():
    assert {need.resource for need in Facts().requires()} == set(FACT_NAMES)
    assert {need.resource for need in Observe().requires()} == set(OBSERVE_NAMES)


def test_a_script_in_short_is_a_shell_step():
    assert Step.shell("act", "true") == Shell("act", "true")


PATHS = st.text(alphabet="ab./* \udce9…", max_size=12).map(lambda text: f"/{text}")


@given(PATHS)
def test_a_path_is_needed_in_the_one_form_that_is_matched(path):
    (need,) = Stat(path=path).requires()
    assert isinstance(need.resource, str)
    assert not set(need.resource.split("/")[1:]) & {".", ".."}
    assert (need,) == Stat(path=need.resource).requires()


def test_bytes_that_were_no_utf_8_are_themselves_again():
    assert WriteFile(path="/a", content="\udcff").body == b"\xff"
    assert Shell("act", "echo \udcff").digest != Shell("act", "echo \udcfe").digest


def test_a_program_is_told_the_path_that_was_matched():
    """Behind a link, `..` leads elsewhere; a program that looks for its parts beside argv[0] must not be led there."""
    assert Exec(["/tmp/link/../../usr/bin/gcc"]).requires()[0].resource == ("/usr/bin/gcc",)
    assert plain_argv(["/tmp/link/../../usr/bin/gcc", "a/../b"]) == ("/usr/bin/gcc", "a/../b")
    assert plain_argv(["gcc"]) == ("gcc",)
