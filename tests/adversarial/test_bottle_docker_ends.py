"""How a bottle on Docker ends: by what its agent uses up, with its launcher, its bundle and its engine."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from bottle.backends.docker import root_label
from tests.conftest import SYSTEM_DIRS
from tests.parts.bottle_backends import Scene
from tests.parts.bottle_engine import IMAGE, BottleEngine
from tests.parts.bottle_running import SCRIPT_HEAD, egress_environment, processes_with
from tests.parts.docker_stage import bottles_on, engine_of, home_of, running_in
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

RESOURCES = """
import time
def child(text):
    return subprocess.run(['/usr/bin/python3', '-c', text], capture_output=True, timeout=60).returncode
found['forks'] = child('''
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0: time.sleep(5); os._exit(0)
        made += 1
except OSError: os._exit(7)
os._exit(0)''')
time.sleep(6)
found['memory'] = child("x = bytearray(1500 << 20)")
found['tmp'] = child("f = open('/tmp/x', 'wb'); [f.write(bytes(1 << 20)) for _ in range(600)]")
try: os.unlink('/tmp/x')
except OSError: pass
found['root'] = attempt(lambda: open('/var/x', 'w'))
found['file'] = attempt(lambda: os.truncate('/tmp/y', 1 << 40) if open('/tmp/y', 'w') else None)
found['ok'] = get('https://api.test/v1/after')[0]
"""


@pytest.mark.attack("ES5", "ES6", "ES7", "ES8", backend="docker")
def test_what_an_agent_uses_up_is_its_own(stage: Scene, tmp_path: Path) -> None:
    """ES5, ES6, ES7: processes, memory and memory disks are bounded, and the bundle goes on."""
    bottles = bottles_on(stage, tmp_path / "home")
    ended = bottles.script("worker", RESOURCES, "--limit", "processes=64", "--limit", "memory=1g")
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["forks"] == 7
    assert answers["memory"] != 0
    assert answers["tmp"] != 0
    assert answers["root"] == "OSError"
    assert answers["ok"] == 200
    assert bottles.upstream.requests[-1].path == "/v1/after"


@pytest.mark.attack("ES7", "ES8", backend="docker")
@pytest.mark.parametrize(
    ("bound", "filling"),
    [
        ("home=64m", "dd if=/dev/zero of=big bs=1M count=4096"),
        ("files=500", "i=0; while :; do i=$((i+1)); : > f$i; done"),
    ],
)
def test_es7_es8_a_home_over_its_bound_ends_the_agent(stage: Scene, tmp_path: Path, bound: str, filling: str) -> None:
    """ES7, ES8: the home is on the host's disk, and somebody looks."""
    bottles = bottles_on(stage, tmp_path / "home")
    ended = bottles.run("worker", ["/bin/sh", "-c", f"{filling}; sleep 600"], "--limit", bound)
    assert ended.code == 1
    assert "home" in ended.stderr.splitlines()[-2] + ended.stderr.splitlines()[-1]
    assert engine_of(stage).labelled("ps", f"bottle.identity={ended.identity}") == []


MOMENTS = ("networks", "bundle", "agent")


@pytest.mark.attack("LC1", backend="docker")
@pytest.mark.parametrize("moment", MOMENTS)
def test_lc1_a_launcher_killed_on_its_way_leaves_nothing_that_runs(stage: Scene, tmp_path: Path, moment: str) -> None:
    """LC1: whatever stood by then ends by itself, and cleanup finds the rest by its labels."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    argv = bottles.start_argv("worker", ["/bin/sleep", "600"])
    launcher = subprocess.Popen(argv, env=bottles.environ(), stdout=-1, stderr=-1, text=True)
    state = bottles.root.path / "state"
    identity = eventually_now(lambda: [each.name for each in state.glob("worker-*")], within_s=30, what="a state")[0]
    label = f"bottle.identity={identity}"
    kind = "network" if moment == "networks" else "ps"
    wanted = {"networks": "outer", "bundle": "bundle", "agent": "agent"}[moment]
    eventually_now(
        lambda: f"bottle-{identity}-{wanted}" in engine.labelled(kind, label), within_s=30, what=f"the {moment}"
    )
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=30)
    eventually_now(lambda: engine.running(label) == [], within_s=30, what="its containers have ended")
    assert processes_with(bottles.env["API_TOKEN"].encode()) == []
    swept = bottles.command("cleanup")
    assert ("removed" in swept.stdout, swept.stderr) == (True, "")
    assert engine.labelled("network", label) == engine.labelled("ps", label) == []


@pytest.mark.attack("LC1", backend="docker")
def test_lc1_cleanup_leaves_what_is_not_its_root_s(stage: Scene, tmp_path: Path) -> None:
    """LC1: by label, never by name alone."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    engine.docker("network", "create", "--label", "bottle.identity=worker-00000000", "bottle-worker-00000000-inner")
    engine.docker("run", "-d", "--name", "bottle-worker-00000000-agent", IMAGE, "sleep", "60")
    try:
        assert bottles.command("cleanup", "--all").stdout == ""
        assert engine.inspect("bottle-worker-00000000-agent")[0]["State"]["Running"]
        assert engine.labelled("network", "bottle.identity=worker-00000000") == ["bottle-worker-00000000-inner"]
    finally:
        engine.docker("rm", "-f", "bottle-worker-00000000-agent")
        engine.docker("network", "rm", "bottle-worker-00000000-inner")


def options_there(directory: Path) -> list[str]:
    """The options of a bottle that is kept in a directory that stands for another host's."""
    directory.mkdir(mode=0o755, exist_ok=True)
    return ["--host", "local:", "--host-dir", str(directory), "--host-env", str(egress_environment().resolve())]


@pytest.mark.attack("LC1", backend="docker")
def test_lc1_what_a_killed_launcher_left_on_another_host_is_found_there(stage: Scene, tmp_path: Path) -> None:
    """LC1: by label, and of this launcher's own alone."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    far = tmp_path / "far"
    for directory in (tmp_path, *tmp_path.parents):  # root's; who the agent is there comes through
        directory.chmod(directory.stat().st_mode | 0o111)
    nobody = bottles.command("cleanup", "--host", "local:")
    assert (nobody.returncode, "no bottle of yours ran on Docker on local:" in nobody.stderr) == (2, True)
    launcher = bottles.begin("worker", ["/bin/sleep", "600"], *options_there(far))
    (identity,) = running_in(bottles)
    assert engine.labelled("network", f"bottle.root={root_label(f'{far}/any')}", f"bottle.identity={identity}")
    assert bottles.command("cleanup", "--host", "local:").stdout == ""
    assert len(engine.running(f"bottle.identity={identity}")) == 2
    launcher.kill()
    launcher.communicate(timeout=30)
    label = f"bottle.identity={identity}"
    eventually_now(lambda: engine.running(label) == [], within_s=30, what="its containers have ended")
    other = ["--label", f"bottle.root={root_label(f'{far}/any')}", "--label", "bottle.identity=worker-00000000"]
    engine.docker("network", "create", *other, "bottle-worker-00000000-outer")
    try:
        assert bottles.command("cleanup").stdout == ""
        assert len(engine.labelled("network", label)) == 2
        swept = bottles.command("cleanup", "--host", "local:")
        assert swept.stdout == f"removed the containers and networks of {identity} on local:\n", swept.stderr
        assert engine.labelled("network", label) == engine.labelled("ps", label) == []
        assert engine.labelled("network", "bottle.identity=worker-00000000") == ["bottle-worker-00000000-outer"]
        assert (far / identity / "home").is_dir()
    finally:
        engine.docker("network", "rm", "bottle-worker-00000000-outer")


@pytest.mark.attack("LC1", backend="docker")
def test_lc1_with_its_record_goes_what_a_bottle_left_on_another_host_s_engine(stage: Scene, tmp_path: Path) -> None:
    """LC1: afterwards nothing here would tell of it."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"], *options_there(tmp_path / "far"))
    (identity,) = running_in(bottles)
    label = f"bottle.identity={identity}"
    launcher.kill()
    launcher.communicate(timeout=30)
    eventually_now(lambda: engine.running(label) == [], within_s=30, what="its containers have ended")
    assert f"removed {identity}\n" in bottles.command("cleanup", "--all").stdout
    assert engine.labelled("network", label) == engine.labelled("ps", label) == []
    assert list((tmp_path / "far").iterdir()) == []


ASKING = """
while True:
    try: tunnel('evil.test')
    except OSError: pass
"""


def test_without_room_for_its_audit_a_bottle_ends_and_cleanup_takes_its_networks(stage: Scene, tmp_path: Path) -> None:
    """What can't be written down isn't done, and that is also said of the networks' end."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", SCRIPT_HEAD + ASKING])
    (identity,) = running_in(bottles)
    resource.prlimit(launcher.pid, resource.RLIMIT_FSIZE, (0, 0))  # no file of the launcher's grows any more
    _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode in (1, 3), stderr  # as the record that fails is the bundle's or the launcher's own
    assert "hint: no audit, no run" in stderr
    label = f"bottle.identity={identity}"
    assert engine.labelled("ps", label) == []
    assert bottles.command("cleanup").stdout == f"removed the containers and networks of {identity}\n"
    assert engine.labelled("network", label) == []


@pytest.mark.attack("PX30", backend="docker")
def test_px30_without_its_bundle_the_agent_ends(stage: Scene, tmp_path: Path) -> None:
    """PX30: nothing goes on without a gate."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    (identity,) = running_in(bottles)
    engine.docker("kill", f"bottle-{identity}-bundle")
    _, stderr = launcher.communicate(timeout=40)
    assert launcher.returncode == 1
    assert "the bundle ended" in stderr
    assert engine.labelled("ps", f"bottle.identity={identity}") == []
    assert engine.labelled("network", f"bottle.identity={identity}") == []


@pytest.mark.attack("LC7", backend="docker")
def test_lc7_an_engine_that_keeps_containers_while_it_restarts_keeps_no_bottle(stage: Scene, tmp_path: Path) -> None:
    """LC7: with `live-restore` the agent would run on with no launcher."""
    engine = engine_of(stage)
    before = list(engine.options)
    engine.stop()
    engine.options = ["--live-restore"]
    engine.start()
    try:
        bottles = bottles_on(stage, tmp_path / "home")
        launcher = bottles.begin("worker", ["/bin/sleep", "600"])
        (identity,) = running_in(bottles)
        engine.stop()
        assert processes_with(f"BOTTLE_IDENTITY={identity}".encode()) != []
        assert launcher.stderr is not None
        said = iter(launcher.stderr.readline, "")
        assert any("the container engine went away: waiting" in line for line in said)
        engine.start()
        launcher.communicate(timeout=60)
        assert launcher.returncode not in (0, None)
        assert processes_with(f"BOTTLE_IDENTITY={identity}".encode()) == []
        for kind in ("ps", "network"):
            assert engine.labelled(kind, f"bottle.identity={identity}") == []
    finally:
        engine.remove_all()
        engine.stop()
        engine.options = before
        engine.start()


@pytest.mark.attack("LC7", backend="docker")
def test_lc7_an_engine_that_restarts_ends_its_bottles_and_they_can_be_resumed(stage: Scene, tmp_path: Path) -> None:
    """LC7; and the agent is run by runsc where the engine has it."""
    engine = engine_of(stage)
    bottles = bottles_on(stage, tmp_path / "home")
    script = "[ -e note ] && cat note && exit 0; echo x > note; sleep 600"
    launcher = bottles.begin("worker", ["/bin/sh", "-c", script])
    (identity,) = running_in(bottles)
    eventually_now((home_of(bottles, identity) / "note").exists, within_s=20, what="the note")
    assert _runtime(engine, identity) == "runc"
    engine.stop()
    try:
        _, stderr = launcher.communicate(timeout=40)
    finally:
        # By that name it is registered; what it leads to is the engine's usual one.
        engine.options = ["--add-runtime", f"runsc={shutil.which('runc', path=SYSTEM_DIRS)}"]
        engine.start()
    assert launcher.returncode not in (0, None)
    assert "Traceback" not in stderr
    assert processes_with(f"BOTTLE_IDENTITY={identity}".encode()) == []
    resumed = bottles.command("resume", identity, "-y", *bottles.reaching())
    assert (resumed.returncode, resumed.stdout) == (0, "x\n"), resumed.stderr
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        (identity,) = running_in(bottles)
        assert _runtime(engine, identity) == "runsc"
    finally:
        launcher.terminate()
        launcher.communicate(timeout=40)


def _runtime(engine: BottleEngine, identity: str) -> str:
    return str(engine.inspect(f"bottle-{identity}-agent")[0]["HostConfig"]["Runtime"])
