"""The bounds of a sandbox on a real kernel: as root with control groups, as a plain user with and without one."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from opsexec.executor import RunOutput
from opsexec.far.sandbox_groups import PREFIX, groups_hold, parents
from opsexec.far.sandbox_keep import OVER
from opsexec.handlers.sandbox import keeper
from opsexec.steps import SandboxRun
from tests.conftest import require
from tests.parts.bottle_running import gone, processes_with
from tests.parts.targets import Target
from tests.parts.waiting import eventually, eventually_now

pytestmark = pytest.mark.anyio

SYSTEM = {"/usr": "/usr/"}
LINKS = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
MIB = 1 << 20
BOMB = """
import os, sys, time
made = 0
try:
    while made < 500:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        made += 1
except OSError as error: print(made, type(error).__name__, flush=True)
else: print(made, 'none', flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    require("bwrap", "needs bubblewrap (apt-get install bubblewrap)")


def groups_held() -> None:
    """Skip, or fail under REQUIRE_ALL, where this user can't make control groups."""
    require({"processes", "memory"} <= set(groups_hold()), "needs a place to make control groups in")


def groups_of(name: str) -> list[str]:
    """The control groups of a sandbox that are there."""
    found = [str(entry) for parent in parents() for entry in Path(parent.path).iterdir()]
    return [each for each in found if each.rpartition("/")[2].startswith(PREFIX) and each.endswith(f".{name}")]


def sandbox(name: str, script: str, **more: object) -> SandboxRun:
    fields = {"read_only": SYSTEM, "links": LINKS, "env": {"BOMB_MARK": name}, **more}
    return SandboxRun(name, ["/usr/bin/python3", "-c", script], **fields)  # type: ignore[arg-type] # a dict of fields


async def run(target: Target, step: SandboxRun) -> RunOutput:
    async with target.connect() as ex:
        return await ex.run_streaming(step)


class Heard:
    """What a sandbox said so far."""

    def __init__(self) -> None:
        self.text = ""

    async def write(self, stream: str, data: bytes) -> None:
        self.text += data.decode()


@asynccontextmanager
async def running(target: Target, step: SandboxRun) -> AsyncIterator[Heard]:
    """A sandbox that goes on until its input ends."""
    heard, over = Heard(), asyncio.Event()

    async def held_open() -> AsyncIterator[bytes]:
        await over.wait()
        yield b""

    async with target.connect() as ex:
        task = asyncio.create_task(ex.run_streaming(step, heard, stdin=held_open()))
        try:
            yield heard
        finally:
            over.set()
            await task


@pytest.fixture(params=["local", "ssh_user"])
def either(request: pytest.FixtureRequest) -> Target:
    """This machine as root, and as a plain user who has no control group to give."""
    if request.param == "local":
        groups_held()
    found: Target = request.getfixturevalue(request.param)
    return found


async def test_es5_a_fork_bomb_ends_at_its_bound(either: Target) -> None:
    """Counted from outside; what is beside it still forks."""
    name = f"bomb-{either.name}"
    async with running(either, sandbox(name, BOMB, max_processes=40)) as heard:
        await eventually(lambda: "\n" in heard.text, within_s=20, what="the bomb has met its bound")
        made, error = heard.text.split()
        assert error == "BlockingIOError"
        assert 10 < int(made) < 40
        assert 10 < len(processes_with(f"BOMB_MARK={name}".encode())) <= 40
        assert await asyncio.to_thread(subprocess.call, ["true"]) == 0
    gone(f"BOMB_MARK={name}".encode())
    assert groups_of(name) == []


async def test_es6_memory_ends_at_its_bound(either: Target) -> None:
    script = "import sys\nkept = []\nfor _ in range(60): kept.append(bytearray(16 << 20))\nprint('all of it')"
    out = await run(either, sandbox(f"memory-{either.name}", script, max_memory_bytes=200 * MIB))
    assert "all of it" not in out.text
    # In a group the kernel ends it, which is told; without one, its process gets no more.
    if either.name == "local":
        assert out.exit_code == 137
        assert b"its memory was used up: the kernel has ended 1 of its processes" in out.stderr
    else:
        assert out.exit_code == 137 or b"MemoryError" in out.stderr


async def test_es6_memory_that_no_process_maps_is_bounded_too(local: Target) -> None:
    groups_held()
    script = "import os\nfd = os.memfd_create('x')\nfor _ in range(60): os.write(fd, bytes(16 << 20))\nprint('all')"
    out = await run(local, sandbox("memfd", script, max_memory_bytes=200 * MIB))
    assert (out.exit_code, out.text) == (137, "")


async def test_processors_are_shared_out(local: Target) -> None:
    require("cpus" in groups_hold(), "needs a place to make a cpu control group in")
    script = """
import os, time
began, children = time.monotonic(), []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        while time.monotonic() < began + 2: pass
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
spent = os.times()
print(spent.children_user + spent.children_system, time.monotonic() - began)
"""
    out = await run(local, sandbox("busy", script, max_cpus=0.25))
    spent, took = map(float, out.text.split())
    assert spent < 0.25 * took + 0.3


async def test_a_plain_user_s_sandbox_keeps_to_whole_processors_and_can_t_leave_them(either: Target) -> None:
    """Where no control group holds its share: the processors it was started on, which it can't change."""
    script = """
import os
print(len(os.sched_getaffinity(0)))
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
    print(len(os.sched_getaffinity(0)))
except OSError as error: print(error.strerror)
"""
    out = await run(either, sandbox(f"pinned-{either.name}", script, max_cpus=0.5))
    there = len(os.sched_getaffinity(0))
    held_by_a_group = either.name == "local" and "cpus" in groups_hold()
    said = [str(there)] * 2 if held_by_a_group else ["1", "Operation not permitted"]
    assert out.text.splitlines() == said
    free = await run(either, sandbox(f"unpinned-{either.name}", script, max_cpus=0.0))
    assert free.text.splitlines() == [str(there)] * 2


async def test_es7_es8_what_is_in_memory_has_a_size(either: Target) -> None:
    script = """
import os
for place in ('/tmp', '/dev/shm', '/dev', '/'):
    try:
        with open(place + '/x', 'wb') as file:
            for _ in range(64): file.write(bytes(1 << 20))
        print(place, 'all of it')
    except OSError as error: print(place, error.strerror)
"""
    out = await run(either, sandbox("full", script, tmpfs=("/tmp",), tmpfs_bytes=16 * MIB))
    assert out.text.splitlines() == [
        "/tmp No space left on device",
        "/dev/shm No space left on device",
        "/dev Read-only file system",
        "/ Read-only file system",
    ]


FILL = {
    "ES7": "for at in range(400):\n    open(f'/home/{at}', 'wb').write(bytes(1 << 20)); time.sleep(0.005)",
    "ES7_hidden": (
        "os.mkdir('/home/h'); os.chdir('/home/h')\nfor at in range(400):\n"
        "    open(f'{at}', 'wb').write(bytes(1 << 20)); os.chmod('/home/h', 0)\n"
        "    time.sleep(0.005); os.chmod('/home/h', 0o300)"
    ),
    "ES7_deleted": (
        "kept = []\nfor at in range(400):\n    kept.append(open('/home/x', 'wb', 0)); os.unlink('/home/x')\n"
        "    kept[-1].write(bytes(1 << 20)); time.sleep(0.005)"
    ),
    "ES8": "for at in range(40000):\n    os.mkdir(f'/home/{at}'); time.sleep(0.0005)",
}


@pytest.mark.parametrize("attack", FILL)
async def test_es7_es8_a_home_over_its_bound_ends_its_sandbox(either: Target, shared_dir: Path, attack: str) -> None:
    """On a disk of its own, so that what others write there doesn't count."""
    home = shared_dir / "home"
    home.mkdir()
    owner = pwd.getpwnam(either.login)
    os.chown(home, owner.pw_uid, owner.pw_gid)
    script = f"import os, time\n{FILL[attack]}\nprint('all of it')\ntime.sleep(20)"
    step = sandbox(
        f"fill-{either.name}", script, writable={"/home": f"{home}/"}, max_tree_bytes=64 * MIB, max_tree_files=5000
    )
    out = await run(either, step)
    assert out.exit_code == OVER, out.stderr
    assert out.stderr.decode().startswith(f"sandbox fill-{either.name}: ")
    assert "ended" in out.stderr.decode()
    gone(f"BOMB_MARK=fill-{either.name}".encode())


async def test_a_file_is_no_larger_than_it_may_be(either: Target, shared_dir: Path) -> None:
    home = shared_dir / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    script = "try: open('/home/x', 'wb').write(bytes(9 << 20))\nexcept OSError as error: print(error.strerror)"
    step = sandbox("file", script, writable={"/home": f"{home}/"}, max_file_bytes=4 * MIB)
    assert (await run(either, step)).text == "File too large\n"


async def test_a_killed_keeper_takes_its_sandbox_along_and_its_group_is_taken_away_later(local: Target) -> None:
    groups_held()
    name = "orphaned"
    async with local.connect() as ex:
        task = asyncio.create_task(
            ex.run_streaming(sandbox(name, "import time; time.sleep(60)", max_processes=40, pid_one=True))
        )
        mark = f"BOMB_MARK={name}".encode()
        await eventually(lambda: bool(processes_with(mark)), within_s=20, what="the program has started")
        (kept,) = groups_of(name)
        maker = int(kept.rpartition("/")[2].removeprefix(PREFIX).partition(".")[0])
        os.kill(maker, signal.SIGKILL)
        out = await task
        assert out.signal == "SIGKILL"
        gone(mark)
        await run(local, sandbox("next", "pass", max_processes=40))
        assert groups_of(name) == []


async def test_its_end_by_a_signal_is_told_as_one(local: Target) -> None:
    out = await run(local, sandbox("ends", "import os; os.kill(os.getpid(), 15)"))
    assert (out.exit_code, out.signal) == (143, None)  # bubblewrap's own way of telling


@pytest.fixture
def delegated(plain_user: str) -> Iterator[tuple[str, Path]]:
    """A group of the process controller that is a plain user's, as systemd delegates one to a session."""
    groups_held()
    (parent,) = [each for each in parents() if "processes" in each.limits]
    place = Path(parent.path) / f"opsexec-test-{os.getpid()}"
    place.mkdir()
    owner = pwd.getpwnam(plain_user).pw_uid
    for each in (place, place / "cgroup.procs"):
        os.chown(each, owner, owner)
    try:
        yield plain_user, place
    finally:
        for each in place.iterdir():
            if each.is_dir():
                each.rmdir()
        place.rmdir()


def test_a_plain_user_s_own_group_is_used_where_there_is_one(delegated: tuple[str, Path]) -> None:
    user, place = delegated
    unified = (place / "cgroup.subtree_control").exists()
    require(not unified, "needs version 1: in 2 a group that holds a process can't give its children anything")
    words = "--unshare-all --die-with-parent --ro-bind /usr /usr --proc /proc --dev /dev"
    links = [word for at, to in LINKS.items() for word in ("--symlink", to, at)]
    python = "/usr/bin/python3"
    bwrap = ["bwrap", *words.split(), *links, "--", python, "-c", BOMB]
    argv = [python, "-I", "-S", "-c", keeper(), "mine", "processes=30", "--", *bwrap]
    into = f'echo $$ > {place}/cgroup.procs && exec setpriv --reuid={user} --regid={user} --clear-groups "$@"'
    with subprocess.Popen(
        ["/bin/sh", "-c", into, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        made, error = process.stdout.readline().split()
        (own,) = [each for each in place.iterdir() if each.is_dir()]
        assert own.name.endswith(".mine")
        assert (own / "pids.max").read_text() == "30\n"
        assert int((own / "pids.current").read_text()) == 30
        assert (error, int(made) < 30) == ("BlockingIOError", True)
    eventually_now(lambda: not own.exists(), within_s=20, what="the group is gone")


async def test_looking_costs_next_to_nothing(shared_dir: Path) -> None:
    """A watched home with many files: as long as the disk doesn't grow, nothing is counted."""
    from opsexec.far.sandbox_room import Room

    for at in range(2000):
        (shared_dir / str(at)).touch()
    room = Room(str(shared_dir), 1 << 40, 1 << 30)
    began = time.process_time()
    for _ in range(100):
        assert room.over() is None
    assert time.process_time() - began < 0.5


PROGRAMS = {
    "git": "git init -q /tmp/r && git -C /tmp/r -c user.name=a -c user.email=a@b commit -q --allow-empty -m m",
    "python": "python3 -c 'import asyncio, multiprocessing, ssl, sqlite3, subprocess, threading; "
    'p = multiprocessing.Process(target=print, args=("child",)); p.start(); p.join(); '
    "asyncio.run(asyncio.sleep(0)); t = threading.Thread(target=print); t.start(); t.join()'",
    "pip": "python3 -m venv /tmp/v && /tmp/v/bin/python -m pip --version",
    "perl": "perl -e 'print fork() ? 1 : 0'",
    "apt": "apt-cache --version && dpkg --version",
    "tar": "tar -C /usr/share/common-licenses -cf - . | gzip -1 | wc -c",
    "ssh": "ssh -V && ssh-keygen -q -t ed25519 -N '' -f /tmp/k",
    "node": 'node -e \'require("fs").readFile("/usr/bin/env", () => new Promise(r => setTimeout(r, 9)).then(() => '
    'require("child_process").execSync("true")))\'',
    "npm": "npm --version",
    "gcc": "echo 'int main(){return 0;}' > /tmp/a.c && gcc -o /tmp/a /tmp/a.c && /tmp/a",
    "socat": "socat -V",
    "tmux": "tmux -f /dev/null -S /tmp/s new-session -d 'sleep 9' && tmux -S /tmp/s kill-server",
    "script": "script -qec 'stty -a; tty' /dev/null </dev/null",
}


HERE = [
    each for each in PROGRAMS if (Path("/usr/bin") / {"pip": "python3", "apt": "apt-cache"}.get(each, each)).exists()
]


@pytest.mark.parametrize("program", sorted({*HERE, "git", "python"}))
async def test_real_programs_run_under_the_filter_and_the_bounds(local: Target, program: str) -> None:
    """Those of this machine's own; git and Python are everywhere where bottles are."""
    step = SandboxRun(
        "real",
        ["/bin/bash", "-ec", PROGRAMS[program]],
        read_only={**SYSTEM, "/etc/alternatives": "/etc/alternatives/", "/etc/passwd": "/etc/passwd"},
        links=LINKS,
        tmpfs=("/tmp",),
        env={"PATH": "/usr/bin:/usr/local/bin:/bin", "HOME": "/tmp", "TERM": "dumb"},
        max_processes=256,
        max_memory_bytes=2 << 30,
        max_cpus=2.0,
    )
    out = await run(local, step)
    assert out.ok, out.stderr[-2000:]
