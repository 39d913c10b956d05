"""Container steps against a real engine: on this machine, behind sshd, through an agent."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from pathlib import Path

import pytest

from opsexec.errors import AddressesTaken, CapabilityDenied, MadeDifferently, OpsError, StepFailed
from opsexec.secret import Secret
from opsexec.steps import (
    Attachment,
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
    GivenFile,
    ImageBuild,
    ImageInspect,
    ImageRemove,
    NetworkCreate,
    NetworkRemove,
)
from tests.parts.bottle_engine import IMAGE, BottleEngine
from tests.parts.container_engine import OURS, TINY, Ways, blocks
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture(params=["local", "ssh", "agent"])
def way(ways: Ways, request: pytest.FixtureRequest) -> Target:
    return ways.target(request.param)


@pytest.fixture
def local(ways: Ways) -> Target:
    return ways.target("local")


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def names(engine: BottleEngine) -> list[str]:
    return engine.labelled("ps", "test.of=containers")


async def test_a_container_runs_to_its_end_with_its_input_and_output_here_and_is_gone(way, ways):
    step = ContainerRun(
        name="runs",
        image=TINY,
        labels=OURS,
        argv=sh('cat; echo "to $WHOM" >&2; exit 3'),
        env={"WHOM": "you"},
        stdin="a",
    )
    async with way.connect() as ex:
        out = await ex.run_streaming(step, stdin=blocks(b"b" * 300_000))
    assert (out.exit_code, out.signal, out.changed) == (3, None, True)
    assert out.stdout_bytes == 300_001
    assert out.stdout.endswith(b"bbb")
    assert out.stderr == b"to you\n"
    assert names(ways.engine) == []


async def test_a_container_has_nothing_that_it_was_not_given(way):
    script = "cat /proc/self/status; id; ls /sys/class/net; touch /x; echo x > /proc/sys/kernel/hostname; mount"
    async with way.connect() as ex:
        out = await ex.run_streaming(ContainerRun(name="bare", image=TINY, labels=OURS, argv=sh(script)))
    said = out.text
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in said
    assert "uid=1000" in said
    assert "\nlo\n" in said
    assert "eth0" not in said
    assert out.stderr.count(b"Read-only file system") == 2


async def test_a_secret_is_in_the_program_and_nowhere_else(way, ways):
    value = "tok-5f1c two\nlines 'and' \"quotes\" $HOME \\ %b \n\n"
    step = ContainerRun(
        name="keeps",
        image=TINY,
        labels=OURS,
        argv=sh('printf %s "$TOKEN" | sha256sum; printf %s "$TOKEN" | wc -c; cat; echo; echo ready; sleep 60'),
        env={"TOKEN": Secret(value), "OTHER": Secret("")},
        stdin="first",
    )
    seen: list[str] = []

    class Look:
        async def write(self, stream: str, data: bytes) -> None:
            if b"ready" in data:
                seen.append(json.dumps(ways.engine.inspect("keeps")))
                seen.append(ways.engine.docker("top", "keeps"))
                seen.append(ways.engine.docker("logs", "keeps", check=False))
                seen.append(ways.engine.docker("diff", "keeps"))
                ways.engine.docker("kill", "keeps")

    async with way.connect() as ex:
        out = await ex.run_streaming(step, Look())
    assert f"\n{len(value)}\n" in out.text
    assert "first" in out.text
    assert out.exit_code == 137
    assert len(seen) == 4
    assert not [each for each in seen if "tok-5f1c" in each or "\\\\0164" in each]


async def test_a_program_that_breaks_off_says_how(way):
    async with way.connect() as ex:
        with pytest.raises(StepFailed, match="exit status 7"):
            await ex.run(ContainerRun(name="fails", image=TINY, labels=OURS, argv=sh("exit 7")))
        with pytest.raises(OpsError, match="no-such-program"):
            await ex.run(ContainerRun(name="fails", image=TINY, labels=OURS, argv=["/bin/no-such-program"]))


async def test_a_container_lives_on_between_its_steps(way, ways):
    labels = {**OURS, "way": way.name}
    create = ContainerCreate(
        name="lives", image=TINY, labels=labels, argv=sh("echo begun; sleep 600"), volumes=("/home",), env={"A": "b"}
    )
    async with way.connect() as ex:
        made = await ex.run(create)
        again = await ex.run(create)
        assert (made.changed, again.changed, made.value == again.value) == (True, False, True)
        with pytest.raises(MadeDifferently, match="made from something else"):
            await ex.run(ContainerCreate(name="lives", image=TINY, labels=labels, argv=sh("true")))
        assert (await ex.run(ContainerStart(name="lives", labels=labels))).changed
        assert not (await ex.run(ContainerStart(name="lives", labels=labels))).changed
        found = (await ex.run(ContainerInspect(name="lives"))).value
        assert (found["exists"], found["status"], found["labels"]["way"]) == (True, "running", way.name)
        assert "A" in found["env_names"]
        ran = await ex.run_streaming(
            ContainerExec(
                name="lives", labels=labels, argv=sh("id -u; echo $S$P; cat; exit 4"), stdin="in",
                env={"S": Secret("se"), "P": "cret"}, workdir="/tmp", user="1234",
            )
        )  # fmt: skip
        assert (ran.exit_code, ran.text) == (4, "1234\nsecret\nin")
        listed = (await ex.run(ContainerList(labels={"way": way.name}, names="li*"))).value
        assert [each["name"] for each in listed] == ["lives"]
        assert (await ex.run(ContainerList(labels={"way": "another"}))).value == []
        assert (await ex.run(ContainerLogs(name="lives"))).text == "begun\n"
        assert (await ex.run(ContainerSignal(name="lives", labels=labels, signal="SIGHUP"))).changed
        assert (await ex.run(ContainerStop(name="lives", labels=labels, grace_s=0))).changed
        assert not (await ex.run(ContainerStop(name="lives", labels=labels, grace_s=0))).changed
        assert (await ex.run(ContainerRemove(name="lives", labels=labels))).changed
        assert not (await ex.run(ContainerRemove(name="lives", labels=labels))).changed
        assert (await ex.run(ContainerInspect(name="lives"))).value == {"exists": False}


async def test_files_go_in_and_come_out_as_a_checked_tar(way):
    labels = {**OURS, "way": way.name}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("tree/streamed")
        info.size, info.mode, info.uid = 5, 0o4755, 0
        archive.addfile(info, io.BytesIO(b"12345"))
    async with way.connect() as ex:
        await ex.run(
            ContainerCreate(name="copies", image=TINY, labels=labels, argv=sh("sleep 600"), volumes=("/home",))
        )
        files = (GivenFile("conf/a", "one\n", "0600"), GivenFile("conf/b", Secret("two")))
        put = ContainerCopyIn(name="copies", labels=labels, dest="/home", files=files)
        assert (await ex.run(put, stdin=blocks(data.getvalue()))).value == {"entries": 3, "bytes": 12}
        await ex.run(ContainerStart(name="copies", labels=labels))
        look = ContainerExec(
            name="copies", labels=labels, argv=sh("cd /home; stat -c '%n %a %u' conf/a conf/b tree/streamed")
        )
        assert (await ex.run(look)).text == "conf/a 600 1000\nconf/b 644 1000\ntree/streamed 755 1000\n"
        await ex.run(
            ContainerExec(name="copies", labels=labels, argv=sh("ln -s /etc/shadow /home/out; ln -s a /home/conf/in"))
        )
        out = await ex.run(ContainerCopyOut(name="copies", labels=labels, path="/home"))
        assert out.value == {"entries": 8, "bytes": 12, "left_out": 1}
        with pytest.raises(OpsError, match="over 3 bytes"):
            await ex.run(ContainerCopyOut(name="copies", labels=labels, path="/home", max_bytes=3))
        await ex.run(ContainerRemove(name="copies", labels=labels))
    with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
        files_of = ((member.name, archive.extractfile(member)) for member in archive if member.isreg())
        found = {name: file.read() for name, file in files_of if file is not None}
        assert archive.getmember("home/conf/in").linkname == "a"
    assert found == {"home/conf/a": b"one\n", "home/conf/b": b"two", "home/tree/streamed": b"12345"}


async def test_an_image_is_built_of_what_the_step_and_a_directory_hold(way, shared_dir: Path):
    (shared_dir / "sub").mkdir()
    (shared_dir / "sub" / "file").write_text("of the context\n")
    shared_dir.chmod(0o755)
    name = f"opsexec-test/built:{way.name}"
    text = f"ARG FROM={TINY}\nFROM ${{FROM}}\nCOPY given /given\nRUN cat /given\n"
    build = ImageBuild(
        name=name, labels=OURS, dockerfile=text, files=(GivenFile("given", f"of the step, {way.name}\n"),)
    )
    more = ImageBuild(
        name=name, labels=OURS, dockerfile=f"FROM {TINY}\nCOPY sub /s\nRUN cat /s/file\n", context=f"{shared_dir}/"
    )
    async with way.connect() as ex:
        assert (await ex.run(build, check=True)).changed
        assert (await ex.run(ImageInspect(name=name))).value == {"exists": False}
        out = await ex.run(build)
        assert b"of the step" in out.stdout
        assert (await ex.run(build)).value == out.value
        assert not (await ex.run(build)).changed
        assert b"of the context" in (await ex.run(more)).stdout
        with pytest.raises(StepFailed, match="returned a non-zero code: 9"):
            await ex.run(ImageBuild(name=name, labels=OURS, dockerfile=f"FROM {TINY}\nRUN exit 9\n"))
        with pytest.raises(StepFailed, match="no image opsexec-test/nowhere:1 to build on") as caught:
            await ex.run(ImageBuild(name=name, labels=OURS, dockerfile="FROM opsexec-test/nowhere:1\n"))
        assert "`docker pull opsexec-test/nowhere:1`" in (caught.value.hint or "")
        with pytest.raises(StepFailed, match="doesn't carry"):
            await ex.run(ImageRemove(name=name, labels={"test.of": "others"}))
        assert (await ex.run(ImageRemove(name=name, labels=OURS))).changed
        assert not (await ex.run(ImageRemove(name=name, labels=OURS))).changed


async def test_check_mode_makes_nothing(way, ways):
    steps = (
        NetworkCreate(name="predicted", labels=OURS),
        ContainerRun(name="predicted", image=TINY, labels=OURS, argv=sh("true")),
        ContainerCreate(name="predicted", image=TINY, labels=OURS, argv=sh("true")),
    )
    async with way.connect() as ex:
        for step in steps:
            assert (await ex.run(step, check=True)).changed
        assert not (await ex.run(ContainerRemove(name="predicted", labels=OURS), check=True)).changed
    assert names(ways.engine) == []
    assert ways.engine.labelled("network", "test.of=containers") == []


SERVES = "import socket; s = socket.create_server(('', 8000)); print('up', flush=True)\nwhile True: s.accept()"
REACHES = """
import socket
for address in ("10.89.201.9", "10.89.201.1", "203.0.113.7"):
    try:
        socket.create_connection((address, 8000), 2).close()
        print(address)
    except OSError:
        pass
"""


async def test_a_network_without_a_gateway_reaches_its_members_and_nobody_else(local, ways):
    net = NetworkCreate(name="inner", labels=OURS, subnet="10.89.201.0/24")
    at = Attachment("inner", "10.89.201.9")
    server = ContainerCreate(name="server", image=IMAGE, labels=OURS, argv=["python3", "-c", SERVES], networks=(at,))
    client = ContainerRun(
        name="client", image=IMAGE, labels=OURS, argv=["python3", "-c", REACHES], networks=(Attachment("inner"),)
    )
    listener = ways.engine.within(lambda: socket.create_server(("", 8000)))  # as every service of the host's would
    try:
        async with local.connect() as ex:
            made = await ex.run(net)
            assert not (await ex.run(net)).changed
            assert made.value["subnet"] == "10.89.201.0/24"
            await ex.run(server)
            await ex.run(ContainerStart(name="server", labels=OURS))
            await eventually(lambda: "up" in ways.engine.docker("logs", "server"), within_s=30, what="it serves")
            out = await ex.run(client)
            found = (await ex.run(ContainerInspect(name="server"))).value
            await ex.run(ContainerRemove(name="server", labels=OURS))
            assert (await ex.run(NetworkRemove(name="inner", labels=OURS))).changed
        assert found["networks"]["inner"]["ipv4"] == "10.89.201.9"
        assert out.text == "10.89.201.9\n"
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    finally:
        listener.close()


async def test_an_image_of_the_same_is_not_built_again_because_another_network_was_at_hand(local):
    nets = [
        NetworkCreate(name=name, labels=OURS, subnet=f"10.89.{at}.0/24") for name, at in (("n-1", 205), ("n-2", 206))
    ]
    text = f"FROM {TINY}\nRUN echo made\n"
    apart, first, second = (
        ImageBuild(name="opsexec-test/by-network:1", labels=OURS, dockerfile=text, network=name)
        for name in (None, "n-1", "n-2")
    )
    async with local.connect() as ex:
        try:
            for net in nets:
                await ex.run(net)
            built = await ex.run(first)
            again = await ex.run(second)
            assert (again.changed, again.value) == (False, built.value)
            # Without any network the same lines may say something else.
            assert (await ex.run(apart)).changed
        finally:
            for net in nets:
                await ex.run(NetworkRemove(name=net.name, labels=OURS))
            await ex.run(ImageRemove(name=first.name, labels=OURS))


async def test_a_name_and_addresses_that_are_taken_are_errors_of_their_own_kinds(way):
    labels = {**OURS, "way": way.name}
    async with way.connect() as ex:
        await ex.run(NetworkCreate(name="first", labels=labels, subnet="10.89.203.0/24"))
        try:
            with pytest.raises(AddressesTaken):
                await ex.run(NetworkCreate(name="second", labels=labels, subnet="10.89.203.128/25"))
            with pytest.raises(MadeDifferently):
                await ex.run(NetworkCreate(name="first", labels=labels, subnet="10.89.204.0/24"))
        finally:
            await ex.run(NetworkRemove(name="first", labels=labels))


async def test_what_others_made_is_left_alone(local, ways):
    ways.engine.docker("create", "--name", "theirs", "--label", "owner=them", TINY, "/bin/true")
    ways.engine.docker("network", "create", "--label", "owner=them", "theirs")
    try:
        async with local.connect() as ex:
            for step in (
                ContainerRemove(name="theirs", labels=OURS),
                ContainerStart(name="theirs", labels=OURS),
                ContainerExec(name="theirs", labels=OURS, argv=["/bin/true"]),
                ContainerCopyOut(name="theirs", labels=OURS, path="/"),
                NetworkRemove(name="theirs", labels=OURS),
                ContainerCreate(name="theirs", image=TINY, labels=OURS, argv=["/bin/true"]),
            ):
                with pytest.raises(StepFailed, match="doesn't carry"):
                    await ex.run(step)
            prefix = ways.engine.docker("inspect", "-f", "{{.Id}}", "theirs").strip()[:12]
            assert not (await ex.run(ContainerRemove(name=prefix, labels={"owner": "them"}))).changed
        assert ways.engine.labelled("ps", "owner=them") == ["theirs"]
        assert ways.engine.labelled("network", "owner=them") == ["theirs"]
    finally:
        ways.engine.docker("rm", "-f", "theirs")
        ways.engine.docker("network", "rm", "theirs")


async def test_a_bind_mount_needs_the_grants_of_its_place_once_links_are_resolved(way, shared_dir: Path):
    (shared_dir / "granted").mkdir(mode=0o755)
    (shared_dir / "secret").mkdir(mode=0o755)
    (shared_dir / "granted" / "file").write_text("seen\n")
    (shared_dir / "secret" / "file").write_text("hidden\n")
    (shared_dir / "granted" / "link").symlink_to(shared_dir / "secret")
    base = ("container.run:binds", f"image.read:{TINY}")
    step = ContainerRun(
        name="binds",
        image=TINY,
        labels=OURS,
        argv=sh("cat /in/file; touch /in/x"),
        read_only={"/in": f"{shared_dir}/granted/"},
    )
    aside = ContainerRun(
        name="binds", image=TINY, labels=OURS, argv=sh("cat /in/file"), read_only={"/in": f"{shared_dir}/granted/link/"}
    )
    async with way.connect(*base, f"fs.read:{shared_dir}/granted/**") as ex:
        out = await ex.run_streaming(step)
        assert (out.text, out.exit_code) == ("seen\n", 1)
        assert b"Read-only" in out.stderr
        with pytest.raises(OpsError, match=r"denied|symbolic link"):
            await ex.run(aside)
    async with way.connect(*base, f"fs.read:{shared_dir}/*") as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run(step)
