"""The doctor on a real podman, in each of the states it breaks in."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent.services.checks.auth import helpers, parse_auth
from agent.services.declaration import Declaration
from agent.services.doctor import Request, examine
from agent.services.probe import FileText
from opsexec import CapabilitySet, LocalExec
from opsexec.steps import PingSocket
from opsexec.testing import MemoryAudit
from tests.conftest import require
from tests.parts import podman as part
from tests.parts.held_process import held
from tests.parts.unix_user import unix_user
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    why = part.missing()
    require(why is None, why or "")
    with part.podman(tmp_path_factory.mktemp("podman")) as real:
        yield real


def declared(real, **more) -> Declaration:
    tables = {"name": "web", "runtime": "podman", "image": real.image, "container_name": "doctor-web", **more}
    return Declaration.model_validate(tables)


async def look(only, declaration=None, *, name="web", run_as=None):
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        found = await examine(ex, Request(name, tuple(only), False, declaration, run_as=run_as))
    return {each.id: each for each in found.findings}


async def test_a_local_image_is_present_and_one_that_is_not_fails(podman):
    found = await look(["image", "podman"], declared(podman))
    assert found["image.present"].verdict == "pass"
    assert found["image.policy"].verdict == "pass"
    gone = await look(["image.present"], declared(podman, image="localhost/nobody-has-this:1"))
    assert (gone["image.present"].verdict, gone["image.present"].evidence[0].rc) == ("fail", 1)


async def test_a_running_container_of_somebody_else_holds_the_name(podman):
    podman.run("doctor-web")
    try:
        found = await look(["container"], declared(podman))
        assert found["container.name-free"].verdict == "fail"
        assert found["container.state"].summary == "1 of 1 containers run"
        assert found["container.orphan"].verdict == "pass"
    finally:
        podman.remove("doctor-web")


async def test_a_container_that_podman_restarts_too_is_told(podman):
    podman.run("doctor-web", options=("--restart=always", "--label", "ops-agent.service=web"))
    try:
        found = await look(["container"], declared(podman))
        assert found["container.name-free"].verdict == "pass"
        assert found["container.double-supervised"].verdict == "warn"
    finally:
        podman.remove("doctor-web")


def wedge(podman, name: str) -> None:
    """`sleep` as process 1 ignores TERM; a stop that is killed leaves its container between two states."""
    stop = subprocess.Popen(["podman", "stop", "-t", "30", name], env=podman.env, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 15
    while "stopping" not in podman("ps", "-a", "--format", "{{.State}}").stdout.lower():
        assert time.monotonic() < end
    stop.kill()
    stop.wait(10)


async def test_a_container_wedged_while_stopping_fails_with_the_command_that_mends_it(podman):
    podman.run("doctor-web", "/bin/sleep", "600")
    try:
        wedge(podman, "doctor-web")
        found = (await look(["container.state"], declared(podman)))["container.state"]
        assert found.verdict == "fail"
        assert found.fix.argv == ("podman", "rm", "-f", "-t", "0", "doctor-web")
        podman(*found.fix.argv[1:])
        after = (await look(["container.state"], declared(podman)))["container.state"]
        assert after.verdict == "skip"
    finally:
        podman.remove("doctor-web")


@contextlib.contextmanager
def somebody_else():
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


async def test_a_process_that_lives_on_after_podman_gave_its_container_up_is_told(podman, tmp_path):
    """SIGKILL doesn't end it; conmon's time is over, so it notes an end; what would clean up finds broken settings."""

    def told(name: str) -> Any:
        return json.loads(podman("container", "inspect", "doctor-web").stdout)[0]["State"][name]

    conf = tmp_path / "containers.conf"
    conf.write_text(part.CONF)
    podman.run("doctor-web", "/bin/sleep", "600", options=("--timeout", "5"), env={"CONTAINERS_CONF": str(conf)})
    try:
        pid = told("Pid")
        with held(pid):
            conf.write_text("nothing [ podman reads")
            assert (await look(["container.orphan"], declared(podman)))["container.orphan"].verdict == "pass"
            eventually_now(lambda: told("Status") == "stopped", within_s=30, what="podman has given it up")
            assert told("Pid") == 0
            found = (await look(["container.orphan"], declared(podman)))["container.orphan"]
            assert found.verdict == "fail", found
            assert f"pid {pid} lives" in found.evidence[0].excerpt
        eventually_now(lambda: not Path(f"/proc/{pid}").exists(), within_s=10, what="its process has ended")
        after = (await look(["container.orphan"], declared(podman)))["container.orphan"]
        assert after.verdict == "pass", after
        noted = json.loads(podman("container", "inspect", "doctor-web").stdout)[0]["PidFile"]
        with somebody_else() as other:  # who has its number by now, as it were
            Path(noted).write_text(str(other))
            after = (await look(["container.orphan"], declared(podman)))["container.orphan"]
        assert after.verdict == "pass", after
    finally:
        podman.remove("doctor-web")


async def test_a_stopped_machine_is_one_clear_failure(podman):
    with unix_user() as user:
        part.stopped_machine(user)
        needs = {"connection": "dead", "require_machine": True}
        found = await look(["podman", "image.present", "container"], declared(podman, podman=needs), run_as=user)
    broken = [each for each in found.values() if each.verdict in ("fail", "unknown")]
    assert [each.id for each in broken] == ["podman.machine-running"]
    assert broken[0].blocks_preflight
    assert broken[0].fix.argv == ("podman", "machine", "start", "dead")
    assert {each.because for each in found.values() if each.verdict == "skip"} == {"podman.machine-running"}


async def test_a_machine_that_is_required_and_was_never_made_is_one_clear_failure(podman):
    with unix_user() as user:
        found = await look(["podman"], declared(podman, podman={"require_machine": True}), run_as=user)
    assert [each.id for each in found.values() if each.verdict in ("fail", "unknown")] == ["podman.machine-exists"]
    assert found["podman.machine-exists"].fix.argv == ("podman", "machine", "init")
    assert found["podman.machine-running"].because == "podman.machine-exists"


async def test_a_connection_that_is_refused_is_one_clear_failure_at_the_socket(podman):
    with unix_user() as user:
        part.stopped_machine(user)
        found = await look(["podman", "image.present"], declared(podman, podman={"connection": "dead"}), run_as=user)
    broken = [each for each in found.values() if each.verdict in ("fail", "unknown")]
    assert [each.id for each in broken] == ["podman.socket"]
    assert "nothing listens there" in broken[0].summary
    assert found["image.present"].because == "podman.socket"


@contextlib.contextmanager
def service(podman, path: Path):
    argv = ["podman", "system", "service", "--time=0", f"unix://{path}"]
    process = subprocess.Popen(argv, env=podman.env, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 15
        while not path.exists():
            assert time.monotonic() < end
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


async def ping(path: Path) -> str:
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        value = (await ex.run(PingSocket(path=str(path)))).value
        assert isinstance(value["state"], str)
        return value["state"]


async def test_a_socket_is_live_stale_missing_silent_or_somebody_elses(podman, tmp_path):
    live = tmp_path / "live.sock"
    with service(podman, live):
        assert await ping(live) == "ok"
    assert await ping(tmp_path / "nothing.sock") == "missing"
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(stale))
    assert await ping(stale) == "refused"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(1)
        assert await ping(tmp_path / "silent.sock") == "silent"
    (tmp_path / "file").write_text("")
    assert await ping(tmp_path / "file") == "odd"


async def test_an_old_podman_warns_that_an_authfile_does_not_isolate_it(podman):
    found = (await look(["podman.version"], name="local-runtime"))["podman.version"]
    version = podman("version", "--format", "{{.Client.Version}}").stdout.strip()
    old = tuple(map(int, version.split(".")[:2])) < (4, 4)
    assert found.verdict == ("warn" if old else "pass")
    assert version in found.summary


def test_helpers_are_named_and_credentials_are_not():
    text = (
        b'{"auths":{"r.example":{"auth":"aHVzaDpodXNo"}},"credHelpers":{"gcr.io":"gcloud"},"credsStore":"osxkeychain"}'
    )
    found = helpers(parse_auth(FileText("/a", "/a", text, "0600")))
    assert found == ["osxkeychain (for everything)", "gcloud (gcr.io)"]


async def test_an_ambient_helper_is_a_warning_and_its_file_stays_unshown(podman):
    with unix_user() as user:
        directory = Path(f"/home/{user}/.docker")
        directory.mkdir()
        (directory / "config.json").write_text(
            '{"credHelpers":{"gcr.io":"gcloud"},"auths":{"gcr.io":{"auth":"aHVzaA=="}}}'
        )
        found = await look(["auth.ambient"], name="local-runtime", run_as=user)
    assert found["auth.ambient"].verdict == "warn"
    assert "gcloud (gcr.io)" in repr(found)
    assert "aHVzaA" not in repr(found)
