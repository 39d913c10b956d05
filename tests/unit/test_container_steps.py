"""Container steps as data: what they refuse to be, what the engine is asked for, what the audit shows."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.handlers.container_config import config_of, reading_secrets, require_no_engine, secrets_header
from opsexec.secret import Secret
from opsexec.steps import (
    Attachment,
    ContainerCopyIn,
    ContainerCreate,
    ContainerExec,
    ContainerInspect,
    ContainerRemove,
    ContainerRun,
    ContainerSignal,
    GivenFile,
    ImageBuild,
    ImageInspect,
    NetworkCreate,
    redact,
)

OURS = {"test.of": "steps"}


def run(**fields: Any) -> ContainerRun:
    return ContainerRun(**({"name": "web", "image": "a:1", "labels": OURS} | fields))


def build(dockerfile: str, **fields: Any) -> ImageBuild:
    return ImageBuild(name="a:1", labels=OURS, dockerfile=dockerfile, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "-v"}, {"name": "a/b"}, {"name": "x"}, {"name": "a" * 129}, {"image": "-a"}, {"image": "A b"},
        {"labels": {}}, {"labels": {"opsexec.run": "x"}}, {"labels": {"a": "b\nc"}}, {"labels": {"A B": "c"}},
        {"env": {"A=B": "c"}}, {"env": {"A": "b\0c"}}, {"user": "root;id"}, {"user": "-1"}, {"run_as": "root"},
        {"hostname": "A_b"}, {"runtime": "../x"}, {"argv": "id"}, {"argv": [Secret("x")]}, {"argv": ["a", "\0"]},
        {"tmpfs": {"/": 1}}, {"tmpfs": {"/tmp": 0}}, {"tmpfs": {"tmp": 1}}, {"tmpfs": {"/a": 1}, "volumes": ("/a/",)},
        {"read_only": {"/a": "b"}}, {"read_only": {"/a": "/b"}, "writable": {"/a/": "/c"}}, {"writable": {"/": "/b/"}},
        {"networks": (Attachment("host"),)}, {"networks": (Attachment("container"),)},
        {"networks": (Attachment("none"),)},
        {"networks": (Attachment("container:x"),)}, {"networks": (Attachment("aa", ipv4="::1"),)},
        {"networks": (Attachment("aa"), Attachment("aa"))}, {"networks": (Attachment("aa", aliases=("-x",)),)},
        {"dns": ("1.1.1.1",)}, {"extra_hosts": {"a": "b"}}, {"memory_bytes": 0}, {"pids": -1}, {"cpus": 0},
        {"workdir": "a"}, {"volumes": ("/a\n",)}, {"user": "0", "writable": {"/a": "/b"}},
        {"user": "root:1", "writable": {"/a": "/b"}}, {"user": "00", "writable": {"/a": "/b"}},
    ],
)  # fmt: skip
def test_a_container_that_would_be_malformed_or_more_than_a_container_is_no_step(fields):
    with pytest.raises(BadStep):
        run(**fields)


def test_no_field_gives_a_container_more_than_the_hardened_default():
    fields = set(ContainerRun.__struct_fields__)
    assert not fields & {"privileged", "cap_add", "devices", "ports", "pid", "ipc", "security_opt", "network_mode"}


def test_what_the_engine_is_asked_for_is_hardened():
    step = run(
        read_only={"/in": "/srv/in/"}, writable={"/out": "/srv/out/"}, tmpfs={"/tmp": 1 << 20}, volumes=("/v",),
        networks=(Attachment("inner", "10.89.0.2", ("web",)), Attachment("outer")), dns=("10.89.0.1",), cpus=8,
        env={"A": "plain", "B": Secret("hush-hush")}, argv=["/bin/x", "y"],
    )  # fmt: skip
    sources = {"/srv/in/": "/real/in", "/srv/out/": "/srv/out"}
    config = config_of(step, sources, own_labels={"opsexec.run": "r"})
    host = config["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["RestartPolicy"]) == (False, True, {"Name": "no"})
    assert (host["IpcMode"], host["CgroupnsMode"], host["NetworkMode"]) == ("private", "private", "inner")
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (4 << 30, 4 << 30, 1024)
    assert (host["CpuQuota"], host["CpuPeriod"]) == (800_000, 100_000)
    assert host["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,size=1048576,mode=1777"}
    assert [(m["Type"], m.get("Source"), m["Target"], m.get("ReadOnly", False)) for m in host["Mounts"]] == [
        ("bind", "/real/in", "/in", True), ("bind", "/srv/out", "/out", False), ("volume", None, "/v", False),
    ]  # fmt: skip
    assert host["Mounts"][0]["BindOptions"]["NonRecursive"]
    assert (config["Entrypoint"], config["Cmd"], config["Env"]) == (["/bin/x", "y"], [], ["A=plain"])
    assert "hush" not in json.dumps(config)
    assert not {"Binds", "Devices", "PortBindings", "CapAdd", "PidMode", "UsernsMode", "Links"} & set(host)


def test_a_container_that_lives_on_takes_no_secret():
    with pytest.raises(BadStep, match="docker inspect"):
        ContainerCreate(name="web", image="a:1", labels=OURS, env={"A": Secret("x")})


@pytest.mark.parametrize(
    "path",
    [
        "/", "/var", "/run", "/var/run", "/var/lib", "/run/docker.sock", "/var/run/docker.sock", "/run/docker/x",
        "/home/a/.docker/docker.sock", "/run/user/1000/podman/podman.sock", "/proc", "/proc/1/root", "/sys/fs/cgroup",
        "/run/user/1000", "/run/user", "/run/k3s", "/home/a/.docker/run", "/home/a/.docker/desktop/x",
        "/dev/mem", "/var/lib/docker/volumes", "/run/containerd", "/opt/engine.sock", "/opt",
    ],
)  # fmt: skip
def test_no_mount_reaches_an_engine_or_the_kernel(path):
    with pytest.raises(BadStep) as caught:
        require_no_engine({path: path}, "/opt/engine.sock", "host")
    assert "own the host" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["/srv/app", "/var/www", "/home/a", "/opt2", "/run/app", "/etc/ssl/certs", "/devel"])
def test_other_mounts_are_the_grants_business(path):
    require_no_engine({path: path}, "/opt/engine.sock", "host")


@given(
    st.dictionaries(
        st.from_regex(r"\AS_[A-Z0-9_]{0,8}\Z"),
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        min_size=1,
    )
)
def test_every_secret_arrives_as_it_is_and_the_program_gets_the_rest(values):
    given_in = secrets_header(values) + b"the rest\n"
    script = "import os,sys;sys.stdout.buffer.write(b'\\0'.join(os.environb.get(n.encode(),b'?') for n in sys.argv[1:])"
    argv = reading_secrets(["/usr/bin/python3", "-I", "-c", f"{script}+b'\\0'+sys.stdin.buffer.read())", *values])
    done = subprocess.run(argv, input=given_in, capture_output=True, check=True, env={}, timeout=30)
    assert done.stdout == b"\0".join([*(each.encode() for each in values.values()), b"the rest\n"])


@pytest.mark.parametrize(
    ("dockerfile", "images"),
    [
        ("FROM a:1", ["a:1"]),
        (
            "# a comment\nFROM --platform=linux/amd64 a:1 AS x\nFROM x\nCOPY --from=0 /a /b\nCOPY --from=X /a /b",
            ["a:1"],
        ),
        ("ARG V=1\nARG W\nFROM a:${V}$W\n", ["a:12"]),
        ("FROM scratch\nCOPY --chown=1:1 --from=reg.example:5000/b:2 /a /b", ["reg.example:5000/b:2"]),
        ("from a \\\n  as x\nRUN --mount=type=bind,from=c:3,target=/x ls", ["a", "c:3"]),
        ("FROM a\nONBUILD COPY --from=d /x /y", ["a", "d"]),
        ("FROM a\\\n:1 AS b\nFROM b", ["a:1"]),
        ("FROM\ta\nRUN b \\\x85\nFROM c", ["a", "c"]),
        ("FROM a\nRUN x \\\n  # a comment \\\n\n  --from=y\nCOPY --from=1 /a /b", ["a", "1"]),
        ("FROM a\r\nRUN dd --from=b from=c\r\n", ["a"]),
    ],
)
def test_the_images_a_dockerfile_builds_on_are_known_before_it_is_built(dockerfile, images):
    step = build(dockerfile, build_args={"W": "2"})
    assert list(step.bases()) == images
    assert [need for need in step.requires() if need.verb == "image.read"] == [
        Requirement("image.read", i) for i in images
    ]


@pytest.mark.parametrize(
    "dockerfile",
    [
        "", "RUN id", "FROM $X", "ARG X\nFROM $X", "FROM ${X:-evil}", "# syntax=evil/frontend\nFROM a",
        "#escape=`\nFROM a", "FROM a\nCOPY --from=$X /a /b", "FROM a\nADD https://x/y /z", "FROM a\nADD git@x:y /z",
        "FROM a b c d", "FROM", "FROM a\nCOPY --from=\"b c\" /a /b", "FROM a\nRUN <<EOF\nid\nEOF",
        "FROM a\nRUN x \\\n FROM b", "FROM a\nRUN x \\\n  # c\ncopy --from=b /x /y", "FROM a\nCOPY --fr\\om=b /x /y",
        "ARG A=1 B=2\nFROM a:$A", "ARG A=$B\nFROM a:$A", "FROM a AS", "FROM --x=y a", "\ufeffFROM a",
    ],
)  # fmt: skip
def test_a_dockerfile_whose_images_can_not_be_known_is_no_step(dockerfile):
    with pytest.raises(BadStep):
        build(dockerfile)


@pytest.mark.parametrize(
    "fields",
    [
        {"files": (GivenFile("../x"),)}, {"files": (GivenFile("/x"),)}, {"files": (GivenFile("a//b"),)},
        {"files": (GivenFile("a", mode="4755"),)}, {"files": (GivenFile("a"), GivenFile("a"))},
        {"files": (GivenFile("a", Secret("x")),)}, {"context": "/a"}, {"network": "host"}, {"network": "none"},
        {"build_args": {"a b": "c"}}, {"labels": {}}, {"max_bytes": 0}, {"target": "a b"},
    ],
)  # fmt: skip
def test_a_build_that_would_take_more_than_it_names_is_no_step(fields):
    with pytest.raises(BadStep):
        ImageBuild(**({"name": "a:1", "labels": OURS, "dockerfile": "FROM a"} | fields))


def test_other_steps_of_the_family_refuse_what_is_malformed():
    for make in (
        lambda: ContainerRemove(name="web", labels={}),
        lambda: ContainerSignal(name="web", labels=OURS, signal="9"),
        lambda: ContainerExec(name="web", labels=OURS, argv=[]),
        lambda: ContainerCopyIn(name="web", labels=OURS, dest="a"),
        lambda: ContainerInspect(name="web", run_as="root"),
        lambda: ImageInspect(name="web;id"),
        lambda: NetworkCreate(name="inner", labels=OURS, subnet="8.8.8.0/24"),
        lambda: NetworkCreate(name="inner", labels=OURS, internal=False),
        lambda: NetworkCreate(name="host", labels=OURS),
    ):
        with pytest.raises(BadStep):
            make()


def test_the_audit_shows_neither_secret_nor_body_of_these_steps():
    files = (GivenFile("a", Secret("hush-1")), GivenFile("b", "body-2", "0600"))
    shown = [
        redact(run(env={"A": "value-3", "B": Secret("hush-4")}, stdin=Secret("hush-5"))),
        redact(ContainerCopyIn(name="web", labels=OURS, dest="/a", files=files)),
        redact(build("FROM a\nRUN secret-6", build_args={"A": "b"})),
        redact(run(networks=(Attachment("inner", "10.0.0.2"),))),
    ]
    text = json.dumps(shown)
    assert not [each for each in ("hush", "body-2", "value-3", "secret-6") if each in text]
    assert shown[1]["files"][0] == {"path": "a", "content": "***"}
    assert shown[1]["files"][1]["content"]["bytes"] == 6
    assert shown[3]["networks"] == [{"network": "inner", "ipv4": "10.0.0.2"}]
