"""Following a host through its agent: what happens is told as it happens, to those who may hear it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.events.services import Services
from opsexec import CapabilityDenied, CapabilitySet, NullAudit, connect
from opsexec.errors import HostUnsuitable
from opsexec.executor import EventStream, Stream
from opsexec.hosts.local import LocalHost
from opsexec.steps import Events, Exec, Stat
from opsexec.steps.base import Step
from tests.conftest import require
from tests.parts import docker_engine
from tests.parts import user_systemd as systemd
from tests.parts.agent_calls import grant, http, json_lines, rpc
from tests.parts.ops_agent import OpsAgent
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.anyio


async def first(events: EventStream, within_s: float = 10.0, **wanted: Any) -> Mapping[str, Any]:
    """The next event that has these fields."""

    async def look() -> Mapping[str, Any]:
        async for event in events:
            if wanted.items() <= event.items():
                return event
        raise AssertionError("the events ended")

    return await asyncio.wait_for(look(), within_s)


async def test_samples_and_runs_come_through_one_stream(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        events = ex.observe("load", "runs", interval_s=0.1)
        assert set(await first(events, event="sample")) == {"event", "ts", "load"}
        output = await ex.run(Exec(["sh", "-c", "exit 0"]))
        begun = await first(events, event="run", what="started", run=output.run)
        assert begun["requires"]
        assert (await first(events, event="run", what="ended", run=output.run))["exit_code"] == 0
        detached = await ex.start(Exec(["true"]))
        await first(events, event="run", what="started", run=detached)
        await first(events, event="run", what="ended", run=detached)
        await first(events, event="sample")
        await events.aclose()


async def test_a_count_ends_it_and_a_reader_like_curl_can_ask(ops_agent: OpsAgent) -> None:
    head = "GET /v1/events?names=load,memory&interval=0.05&count=3 HTTP/1.1\nHost: a\nConnection: close"
    said = await asyncio.to_thread(http, ops_agent, head + "\nAccept: application/x-ndjson")
    assert said.count(b"stdout") == 4  # three samples, and the result's own count of bytes
    bad = await asyncio.to_thread(http, ops_agent, head.replace("load", "shadow") + "\nAccept: application/x-ndjson")
    assert json_lines(bad)[0]["error"]["code"] == "bad_step"
    assert ops_agent.records()[-1]["decision"] == "deny"


async def test_each_reading_needs_its_grant_and_runs_of_others_theirs(plain_user: str) -> None:
    theirs = {"principal": f"unix:{plain_user}", "capabilities": ["exec:**"]}
    with OpsAgent([*grant("observe:runs", "observe:load", "exec:**"), theirs], mode="0666") as agent:
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied, match="observe:memory"):
                await ex.run(Events(names=("memory",), count=1))
            events = ex.observe("runs", "load", interval_s=0.1)
            await first(events, event="sample")
            await asyncio.to_thread(_run_as, plain_user, agent)
            mine = (await ex.run(Exec(["true"]))).run
            seen = await first(events, event="run")
            assert (seen["run"], seen["principal"]) == (mine, ex._principal)
            await events.aclose()
        agent.write_config([*grant("observe:runs", "observe:load", "run.read:*"), theirs])
        agent.send(signal.SIGHUP)
        eventually_now(lambda: "reloaded" in agent.said(), within_s=20, what="the reload")
        async with rpc(agent) as ex:
            events = ex.observe("runs", "load", interval_s=0.1)
            await first(events, event="sample")
            await asyncio.to_thread(_run_as, plain_user, agent)
            assert (await first(events, event="run", what="ended"))["principal"] == f"unix:{plain_user}"
            await events.aclose()
        async with rpc(agent, "observe:runs", "observe:load") as ex:
            events = ex.observe("runs", "load", interval_s=0.1)
            await first(events, event="sample")
            await asyncio.to_thread(_run_as, plain_user, agent)
            await first(events, event="sample")
            assert (await first(events))["event"] == "sample"  # the caller narrowed itself to its own runs
            await events.aclose()


async def test_who_hears_of_runs_hears_no_more_once_their_grant_is_another() -> None:
    with OpsAgent(grant("observe:runs", "observe:load", "run.read:*")) as agent:
        async with rpc(agent) as ex:
            runs, load = ex.observe("runs"), ex.observe("load", interval_s=0.1)
            await first(load, event="sample")
            losing = asyncio.create_task(first(runs, 30, event="none such"))
            await eventually(lambda: len(allowed(agent, "events")) == 2, within_s=20, what="both follow")
            agent.write_config(grant("observe:runs", "observe:load"))
            agent.send(signal.SIGHUP)
            with pytest.raises(CapabilityDenied, match="tells of the runs that its grant lets it read"):
                await losing
            await first(load, event="sample")  # that one never asked what it may read
            await load.aclose()


def allowed(agent: OpsAgent, kind: str) -> list[dict[str, Any]]:
    return [x for x in agent.records() if x["decision"] == "allow" and x["step"]["type"] == kind]


def _run_as(user: str, agent: OpsAgent) -> None:
    body = json.dumps({"step": {"type": "exec", "argv": ["true"]}})
    subprocess.run(
        ["runuser", "-u", user, "--", "curl", "-sS", "--unix-socket", str(agent.socket), "http://a/v1/steps",
         "-d", body, "-H", "Content-Type: application/json", "-H", "Accept: application/x-ndjson"],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip


async def test_a_slow_reader_is_told_how_much_it_missed_and_holds_nobody_up() -> None:
    class Slow:
        data = bytearray()
        go = asyncio.Event()

        async def write(self, stream: Stream, data: bytes) -> None:
            await self.go.wait()
            self.data += data

    slow = Slow()
    with OpsAgent() as agent:
        async with rpc(agent) as ex, rpc(agent) as busy:
            task = asyncio.create_task(ex.run(Events(names=("load", "memory", "disks"), interval_s=0.05), slow))
            follower = asyncio.create_task(ex.run(Events(names=("runs",), count=1)))
            await eventually(lambda: len(agent.records()) >= 2, within_s=20, what="both follow")
            runs = asyncio.create_task(ex.run(Events(names=("runs",)), slow))
            await eventually(lambda: len(agent.records()) >= 4, within_s=20, what="three follow")
            await busy.run(Exec(["true"]))
            await asyncio.wait_for(follower, 20)
            before = _rss(agent.pid)
            begun = time.monotonic()
            await asyncio.gather(*(_many(busy, Stat(f"/{'x' * 190}"), 700) for _ in range(8)))
            assert time.monotonic() - begun < 50
            assert _rss(agent.pid) - before < 40 << 20
            slow.go.set()
            await eventually(
                lambda: b'"dropped"' in slow.data, within_s=30, what="the number of those that are missing"
            )
            for each in (task, runs):
                each.cancel()
            await asyncio.wait([task, runs])
    missed = [json.loads(line) for line in slow.data.splitlines() if b'"dropped"' in line]
    assert missed[0]["count"] > 0


async def _many(ex: Any, step: Step, count: int) -> None:
    for _ in range(count):
        await ex.run(step)


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_an_idle_agent_with_followers_of_changes_alone_does_next_to_nothing() -> None:
    with OpsAgent() as agent:
        async with rpc(agent) as ex:
            events = ex.observe("runs", "containers")
            await first(events, event="absent")
            least = min([await _wakings_in(agent.pid, 2.0) for _ in range(3)])  # it still settles in the first
            assert least <= 6  # unlike its CPU time, that doesn't depend on what else runs
            await events.aclose()


async def _wakings_in(pid: int, seconds: float) -> int:
    before = _wakings(pid)
    await asyncio.sleep(seconds)  # what is measured is what it does in a while
    return _wakings(pid) - before


def _wakings(pid: int) -> int:
    """How often any thread of a process has waited for something by now (proc(5), voluntary_ctxt_switches)."""
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


class Podman:
    """A real engine of the test's own: its own store, its own socket."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.socket = directory / "p.sock"
        self._words = [
            "podman", "--root", str(directory / "root"), "--runroot", str(directory / "run"),
            "--storage-driver", "vfs", "--events-backend", "file", "--tmpdir", str(directory / "tmp"),
        ]  # fmt: skip
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve, and wait for the socket."""
        self.socket.unlink(missing_ok=True)
        words = [*self._words, "system", "service", "--time=0", f"unix://{self.socket}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(words, stderr=log, stdout=log)
        eventually_now(self.socket.exists, within_s=20, what="podman's socket")

    def stop(self) -> None:
        """End the service."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    def do(self, *words: str) -> None:
        """Run one podman command."""
        with self._log.open("ab") as log:
            subprocess.run([*self._words, *words], check=True, stdout=log, stderr=log, timeout=60)


def _empty_tar(directory: Path) -> Path:
    empty = directory / "empty.tar"
    with tarfile.open(empty, "w"):
        return empty


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    require("podman", "needs podman")
    empty = _empty_tar(tmp_path)
    with tempfile.TemporaryDirectory(prefix="pod-") as short:  # podman takes no long --runroot
        engine = Podman(Path(short), tmp_path / "podman.log")
        engine.do("import", str(empty), "opsexec-test-empty:latest")
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()


def _watching(socket: Path) -> OpsAgent:
    """An agent that is to follow the engine behind this socket, not yet started."""
    agent = OpsAgent()
    text = agent.config.read_text().replace("[limits]", f'container_sockets = ["{socket}"]\n[limits]')
    agent.config.write_text(text)
    return agent


async def test_containers_that_change_are_told_by_a_real_docker(tmp_path: Path) -> None:
    absent = docker_engine.missing()
    require(absent is None, f"needs a docker engine: {absent}")
    with docker_engine.docker_engine() as docker, _watching(docker.socket) as agent:
        docker.import_image(_empty_tar(tmp_path), "opsexec-test-empty:events")
        async with rpc(agent) as ex:
            events = ex.observe("containers")
            assert (await first(events, event="containers"))["engines"] == [str(docker.socket)]
            name = f"opsexec-test-{os.getpid()}"
            label = ("--label", docker_engine.LABEL)
            await asyncio.to_thread(
                docker.docker, "create", "--name", name, *label, "opsexec-test-empty:events", "/bin/true"
            )
            created = await first(events, event="container", action="create", name=name)
            assert created["image"] == "opsexec-test-empty:events"
            await asyncio.to_thread(docker.docker, "rm", name)
            await first(events, event="container", action="destroy", name=name)
            await events.aclose()


async def test_containers_that_change_are_told_by_a_real_engine(podman: Podman) -> None:
    with _watching(podman.socket) as agent:
        async with rpc(agent) as ex:
            events = ex.observe("containers")
            assert (await first(events, event="containers"))["engines"] == [str(podman.socket)]
            await asyncio.to_thread(podman.do, "create", "--name", "h", "opsexec-test-empty:latest", "/bin/true")
            created = await first(events, event="container", action="create")
            assert (created["name"], created["image"]) == ("h", "localhost/opsexec-test-empty:latest")
            await asyncio.to_thread(podman.do, "rm", "h")
            await first(events, event="container", action="remove", name="h")
            await asyncio.to_thread(podman.stop)
            assert "no container engine" in (await first(events, event="absent"))["reason"]
            await events.aclose()


FLAPPING = "[Service]\nExecStart=/bin/sh -c 'exit 3'\nRestart=on-failure\nRestartSec=50ms\nStartLimitBurst=3\n"


@pytest.mark.parametrize("heard", [True, False], ids=["as it says", "by looking"])
async def test_services_that_change_are_told_by_a_real_manager(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    missing = systemd.missing()
    require(missing is None, f"needs a systemd of its own: {missing}")
    monkeypatch.setattr("agent.events.services.LOOK_S", 1000 if heard else 0.2)
    monkeypatch.setattr("agent.events.services.HEARD_S", 1000)
    if not heard:
        monkeypatch.setattr("agent.events.systemd_words.SOCKET", "systemd/none")
    with systemd.user_systemd(tmp_path_factory.mktemp("systemd")) as manager:
        manager.unit("told.service", "[Service]\nExecStart=/bin/sleep 300\n")
        manager.unit("flaps.service", FLAPPING)
        told: list[dict[str, Any]] = []
        host = LocalHost()
        services = Services(host, str(manager.runtime_dir))
        task = asyncio.create_task(services.run(told.append))
        try:
            await eventually(lambda: bool(told), within_s=10, what="the first word")
            assert told[0] | {"ts": 0} == {"ts": 0, "event": "services", "services": {"failed": []}}
            manager.systemctl("start", "told.service")
            await eventually(lambda: "active/running" in _states(told), within_s=10, what="the start")
            manager.systemctl("kill", "--signal=SEGV", "told.service")
            await eventually(lambda: "failed/failed" in _states(told), within_s=10, what="the failure")
            assert (services.now() or {})["services"] == {"failed": ["told.service"]}
            if heard:
                manager.systemctl("start", "flaps.service")
                moment = "activating/auto-restart"  # it is so for 50 ms
                await eventually(lambda: moment in _states(told, "flaps.service"), within_s=20, what="a moment's state")
                manager.systemctl("daemon-reexec")  # which closes its socket
                manager.systemctl("reset-failed", "told.service")
                await eventually(lambda: _states(told)[-1] != "failed/failed", within_s=20, what="it was heard again")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await host.aclose()


def _states(told: list[dict[str, Any]], unit: str = "told.service") -> list[str | None]:
    return [each["is"] for each in told if each.get("unit") == unit]


async def test_a_host_without_an_agent_says_that_it_takes_one() -> None:
    async with connect("local:", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        with pytest.raises(HostUnsuitable, match="ops-agent"):
            await ex.run(Events(names=("runs",)))


async def test_the_command_line_shows_events(ops_agent: OpsAgent) -> None:
    words = ["observe", ops_agent.url, "load", "containers", "--count", "3", "--interval", "0.5"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "opsexec.cli", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "load" in done.stdout
    assert len(done.stdout.splitlines()) == 3
