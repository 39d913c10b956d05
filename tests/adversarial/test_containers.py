"""What a holder of some container grants tries for more, and what a container's program tries; seen from outside."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from opsexec.errors import BadStep, CapabilityDenied, OpsError, StepFailed
from opsexec.secret import Secret
from opsexec.steps import (
    Attachment,
    ContainerCreate,
    ContainerExec,
    ContainerRemove,
    ContainerRun,
    ContainerStart,
    ImageBuild,
    ImageImport,
    ImageInspect,
    ImageRemove,
)
from tests.parts.container_engine import IMAGES, OURS, TINY, blocks
from tests.parts.tiny_image import tiny_tar

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
TOKEN = "kept-7c1e9a55-from-everyone"


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


async def test_the_beginning_of_an_id_is_no_name(ways):
    engine = ways.engine
    network = engine.docker("network", "create", "--label", "owner=them", "theirs").strip()
    image = engine.docker("image", "inspect", "-f", "{{.Id}}", TINY).strip().removeprefix("sha256:")
    try:
        async with ways.target("local").connect() as ex:
            for step in (
                ContainerRun(
                    name="joins", image=TINY, labels=OURS, argv=["/bin/true"], networks=(Attachment(network[:12]),)
                ),
                ContainerRun(
                    name="joins", image=TINY, labels=OURS, argv=["/bin/true"], networks=(Attachment(network),)
                ),
                ContainerRun(name="joins", image=image[:12], labels=OURS, argv=["/bin/true"]),
                ImageBuild(name="opsexec-test/by-id:1", labels=OURS, dockerfile=f"FROM {image[:12]}\n"),
                ImageBuild(name="opsexec-test/by-id:1", labels=OURS, dockerfile=f"FROM {TINY}\n", network=network[:9]),
            ):
                with pytest.raises(StepFailed, match="there is no"):
                    await ex.run(step)
            assert (await ex.run(ImageInspect(name=image[:12]))).value == {"exists": False}
            whole = ContainerRun(name="joins", image=f"sha256:{image}", labels=OURS, argv=["/bin/true"])
            await ex.run(whole)
        assert engine.inspect("theirs")[0]["Containers"] == {}
    finally:
        engine.docker("network", "rm", "theirs")


async def test_a_base_image_brings_no_image_of_its_own_choice_into_a_build(ways, tmp_path):
    engine = ways.engine
    text = f"FROM {TINY}\nONBUILD COPY --from=opsexec-test/agent:1 /etc/passwd /stolen\n"
    (tmp_path / "Dockerfile").write_text(text)
    engine.docker("build", "-q", "-t", "opsexec-test/onbuild:1", str(tmp_path))
    build = ImageBuild(name="opsexec-test/on-it:1", labels=OURS, dockerfile="FROM opsexec-test/onbuild:1\n")
    async with ways.target("local").connect() as ex:
        with pytest.raises(StepFailed, match="copies from opsexec-test/agent:1"):
            await ex.run(build)
    engine.docker("rmi", "opsexec-test/onbuild:1")


async def test_cr1_a_secret_is_in_no_file_event_or_list_of_the_engine(ways):
    engine = ways.engine
    step = ContainerRun(
        name="holds",
        image=TINY,
        labels=OURS,
        argv=sh("echo up; sleep 60"),
        env={"T": Secret(TOKEN)},
        volumes=("/home",),
    )
    seen: list[str] = []

    def look() -> None:
        places = [f"{engine.home}/{name}" for name in ("data/containers", "exec", "dockerd.log")]
        grep = ["grep", "-rlF", TOKEN, *places]
        seen.append(subprocess.run(grep, capture_output=True, text=True, check=False, timeout=60).stdout)
        seen.append(str([line for line in engine.docker("inspect", "holds").splitlines() if TOKEN in line]))
        seen.append("in ps" if TOKEN in subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout else "")
        seen.append("in env" if any(TOKEN.encode() in data for data in environments(step.name)) else "")

    def environments(name: str) -> list[bytes]:
        """The environments of the engine's own processes around the container, its program's left out."""
        program = int(engine.docker("inspect", "-f", "{{.State.Pid}}", name))
        around = []
        for place in Path("/proc").iterdir():
            try:
                if (
                    place.name.isdigit()
                    and int(place.name) != program
                    and f"{engine.home}" in (place / "cmdline").read_text()
                ):
                    around.append((place / "environ").read_bytes())
            except OSError:
                continue
        assert around
        return around

    class Look:
        async def write(self, stream: str, data: bytes) -> None:
            look()
            engine.docker("kill", "holds")

    async with ways.target("local").connect() as ex:
        await ex.run_streaming(step, Look())
    assert seen == ["", "[]", "", ""]
    events = engine.docker("events", "--since", "10m", "--until", str(int(time.time()) + 2), within_s=30)
    assert "holds" in events
    assert TOKEN not in events


async def test_a_link_to_an_engines_socket_binds_nothing(ways, tmp_path: Path):
    (tmp_path / "innocent").symlink_to(ways.engine.socket)
    (tmp_path / "dir").symlink_to(ways.engine.home)
    async with ways.target("local").connect() as ex:
        for named in (
            f"{tmp_path}/innocent",
            f"{tmp_path}/dir/",
            f"{tmp_path}/dir/docker.sock",
            f"{ways.engine.home}/",
        ):
            step = ContainerRun(
                name="reaches", image=TINY, labels=OURS, argv=sh("ls -la /in"), read_only={"/in": named}
            )
            with pytest.raises(OpsError, match=r"symbolic link|give the container|engine's socket"):
                await ex.run(step)
    assert ways.engine.labelled("ps", "test.of=containers") == []


async def test_grants_of_one_name_reach_no_other(ways):
    held = ("container.run:mine-*", f"image.read:{TINY}", "container.exec:mine-*", "container.remove:mine-*")
    async with ways.target("agent").connect(*held) as ex:
        for step in (
            ContainerRun(name="yours-1", image=TINY, labels=OURS, argv=["/bin/true"]),
            ContainerRun(name="mine-1", image="opsexec-test/agent:1", labels=OURS, argv=["/bin/true"]),
            ContainerRun(name="mine-1", image=TINY, labels=OURS, argv=["/bin/true"], networks=(Attachment("bridge"),)),
            ContainerRun(name="mine-1", image=TINY, labels=OURS, argv=["/bin/true"], read_only={"/x": "/etc/shadow"}),
            ContainerExec(name="yours-1", labels=OURS, argv=["/bin/true"]),
            ImageBuild(name="mine-1", labels=OURS, dockerfile=f"FROM {TINY}\n"),
        ):
            with pytest.raises(CapabilityDenied):
                await ex.run(step)
        await ex.run(ContainerRun(name="mine-1", image=TINY, labels=OURS, argv=["/bin/true"]))


async def test_es4_a_setuid_program_gives_nobody_its_owner(ways):
    step = ImageBuild(
        name="opsexec-test/setuid:1",
        labels=IMAGES,
        dockerfile=f"FROM {TINY}\nRUN chmod 4755 /bin/id && chmod 4755 /bin/cat\n",
    )
    async with ways.target("local").connect() as ex:
        await ex.run(step)
        out = await ex.run_streaming(
            ContainerRun(
                name="climbs", image="opsexec-test/setuid:1", labels=OURS, argv=sh("stat -c %a /bin/id; id -u; id")
            )
        )
        await ex.run(ImageRemove(name="opsexec-test/setuid:1", labels=IMAGES))
    assert out.text.startswith("4755\n1000\n")
    assert "euid" not in out.text


async def test_labels_arrive_as_they_are_and_run_nothing(ways):
    odd = {"test.odd": "a \"b\" 'c' \\ $HOME ${PATH} `id` #x é", "test.of": "containers"}
    async with ways.target("local").connect() as ex:
        await ex.run(ImageImport(name="opsexec-test/odd:1", labels=odd), stdin=blocks(tiny_tar()))
        assert (await ex.run(ImageInspect(name="opsexec-test/odd:1"))).value["labels"] == odd
        await ex.run(ContainerCreate(name="odd", image="opsexec-test/odd:1", labels=odd, argv=["/bin/true"]))
        await ex.run(ContainerRemove(name="odd", labels=odd))
        await ex.run(ImageRemove(name="opsexec-test/odd:1", labels=odd))


async def test_a_container_that_hides_from_its_exec_is_told_of(ways):
    """A program that cleared its environment can't be found by its mark: the error says so, nothing is claimed."""
    hides = "exec env -i /bin/sh -c 'trap \"\" TERM; echo up; while :; do sleep 1; done'"
    async with ways.target("local").connect() as ex:
        await ex.run(ContainerCreate(name="hides", image=TINY, labels=OURS, argv=["/bin/sleep", "600"]))
        await ex.run(ContainerStart(name="hides", labels=OURS))
        try:
            with pytest.raises(StepFailed, match="may still run"):
                await ex.run(ContainerExec(name="hides", labels=OURS, argv=sh(hides), timeout_s=1))
        finally:
            await ex.run(ContainerRemove(name="hides", labels=OURS))


def test_a_writer_on_the_host_is_never_its_root():
    with pytest.raises(BadStep):
        ContainerRun(name="writes", image=TINY, labels=OURS, user="0:0", writable={"/out": "/srv/out/"})
