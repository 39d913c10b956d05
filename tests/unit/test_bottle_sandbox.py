"""SandboxRun: what it asks for, and what bubblewrap is told. Nothing here starts one."""

from __future__ import annotations

import pytest

from opsexec.capability import CapabilitySet
from opsexec.errors import BadStep, CapabilityDenied
from opsexec.far.doors import read_environment
from opsexec.handlers.sandbox import environment_header, words
from opsexec.secret import Secret
from opsexec.steps import SandboxRun, decode_step, encode_step
from opsexec.testing import FakeHost, MemoryAudit, fake_executor

STEP = SandboxRun(
    "bot-1",
    ["true"],
    read_only={"/usr": "/usr/", "/etc/hosts": "/srv/hosts"},
    writable={"/home": "/srv/home/"},
    env={"TOKEN": Secret("s3cret-value")},
)
BWRAP = "/usr/bin/bwrap"
STARTS = {"python3 **": 0}
SOURCES = {"/usr/": "/usr", "/srv/hosts": "/srv/hosts", "/srv/home/": "/srv/home"}


def test_it_needs_its_name_and_every_path_it_binds() -> None:
    assert [str(need) for need in STEP.requires()] == [
        "sandbox.run:bot-1",
        "fs.read:/usr/**",
        "fs.read:/srv/hosts",
        "fs.read:/srv/home/**",
        "fs.write:/srv/home/**",
    ]
    network = SandboxRun("bot-1", ["true"], network=True)
    assert [str(need) for need in network.requires()] == ["sandbox.run:bot-1", "sandbox.network:bot-1"]


@pytest.mark.parametrize(
    "granted",
    [
        ("sandbox.run:bot-1", "fs.read:/usr"),
        ("sandbox.run:bot-1", "fs.read:/usr/*"),
        ("sandbox.run:bot-1", "fs.read:/usr", "fs.read:/usr/*"),
        ("sandbox.run:bot-1", "fs.read:/usr/*/**"),
        ("sandbox.run:bot-2", "fs.read:/usr/**"),
    ],
)
@pytest.mark.anyio
async def test_a_tree_is_bound_under_a_grant_for_the_whole_tree_alone(granted: tuple[str, ...]) -> None:
    host = FakeHost(dirs=["/usr"], files={BWRAP: ""}, answers=STARTS)
    async with fake_executor(host, CapabilitySet.of(*granted)) as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run(SandboxRun("bot-1", ["true"], read_only={"/usr": "/usr/"}))
    assert [call[0] for call in host.calls if call[0] == "process"] == []


@pytest.mark.anyio
async def test_with_its_grants_it_is_one_process_and_its_secrets_go_by_stdin() -> None:
    """CR1."""
    host = FakeHost(dirs=["/usr", "/srv/home"], files={"/srv/hosts": "", BWRAP: ""}, answers=STARTS)
    audit = MemoryAudit()
    async with fake_executor(host, CapabilitySet.of("sandbox.run:bot-*", "fs.*:/**"), audit=audit) as ex:
        await ex.run(STEP)
    (spec,) = host.specs
    assert "s3cret-value" not in "\0".join(spec.argv)
    assert spec.env == {}
    assert spec.stdin == environment_header({"TOKEN": "s3cret-value"})
    assert "s3cret-value" not in repr(audit.records)


@pytest.mark.anyio
async def test_a_link_or_the_wrong_kind_is_not_bound() -> None:
    host = FakeHost(dirs=["/srv/dir"], files={"/srv/file": "", BWRAP: ""}, answers=STARTS)
    async with fake_executor(host) as ex:
        for source in ("/srv/dir", "/srv/file/", "/srv/none"):
            with pytest.raises(BadStep):
                await ex.run(SandboxRun("x", ["true"], read_only={"/a": source}))
    assert host.specs == []


def test_everything_is_unshared_and_nothing_is_kept() -> None:
    argv = words(STEP, SOURCES)
    for word in ("user", "ipc", "pid", "uts", "cgroup", "net"):
        assert f"--unshare-{word}" in argv
    for word in ("--disable-userns", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop"):
        assert word in argv
    assert argv[argv.index("--proc") : argv.index("--proc") + 2] == ["--proc", "/proc"]
    assert " --ro-bind /proc/sys /proc/sys " in " ".join(argv)
    assert " --ro-bind /usr /usr " in " ".join(argv)
    assert " --bind /srv/home /home " in " ".join(argv)
    shared = words(SandboxRun("b", ["true"], network=True), {})
    assert "--unshare-net" not in shared


def test_outer_places_are_mounted_before_inner_ones() -> None:
    step = SandboxRun("b", ["true"], read_only={"/a/b/c": "/x"}, tmpfs=("/a",), writable={"/a/b": "/y/"})
    argv = words(step, {"/x": "/x", "/y/": "/y"})
    places = [argv.index(path) for path in ("/a", "/a/b", "/a/b/c")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../x"},
        {"name": ""},
        {"argv": []},
        {"read_only": {"usr": "/usr/"}},
        {"read_only": {"/usr": "usr/"}},
        {"read_only": {"/a\n": "/a"}},
        {"read_only": {"/a": "/a"}, "writable": {"/a": "/b"}},
        {"doors": {"0": "/s"}},
        {"doors": {"70000": "/s"}},
        {"doors": {"80": "s"}},
        {"env": {"A=B": "c"}},
        {"env": {"A": "b\0c"}},
        {"hostname": "a b"},
        {"uid": 0},
        {"gid": -1},
        {"tmpfs": ("tmp",)},
        {"tmpfs_bytes": 0},
        {"cwd": "x"},
    ],
)
def test_a_malformed_one_can_t_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(BadStep):
        SandboxRun(**{"name": "x", "argv": ["true"], **fields})  # type: ignore[arg-type] # wrong on purpose


def test_it_travels_as_it_is() -> None:
    assert decode_step(encode_step(STEP)) == STEP


def test_the_environment_is_read_to_its_last_byte_and_no_further(tmp_path: object) -> None:
    import os

    reading, writing = os.pipe()
    os.write(writing, environment_header({"A": "1", "EMPTY": "", "LINES": "a\nb"}) + b"rest")
    os.close(writing)
    assert read_environment(reading) == {b"A": b"1", b"EMPTY": b"", b"LINES": b"a\nb"}
    assert os.read(reading, 10) == b"rest"
    os.close(reading)
