"""A sandbox on a real host: as root and as a plain user, started here, over SSH and through an agent."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from opsexec.capability import CapabilitySet
from opsexec.executor import RunOutput
from opsexec.secret import Secret
from opsexec.steps import SandboxRun
from tests.conftest import require
from tests.parts.targets import Target
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio

SYSTEM = {"/usr": "/usr/"}
LINKS = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
LOOK = """
import json, os, socket
status = open('/proc/self/status').read()
def opens(path):
    try: os.close(os.open(path, os.O_WRONLY)); return True
    except OSError: return False
MASKED = ['/proc/kpageflags', '/proc/kpagecount', '/proc/slabinfo', '/proc/vmallocinfo', '/proc/kcore', '/proc/keys',
          '/proc/kallsyms', '/proc/timer_list', '/proc/iomem', '/proc/cmdline', '/proc/interrupts', '/proc/kmsg']
def reads(path):
    try: return bool(open(path, 'rb').read(64))
    except OSError: return False
writable = []
for place, dirs, files in os.walk('/proc'):
    dirs[:] = [each for each in dirs if not each.isdigit() and each not in ('self', 'thread-self')]
    writable += [os.path.join(place, each) for each in files if opens(os.path.join(place, each))]
print(json.dumps({
    'uid': os.getuid(), 'env': dict(os.environ), 'writable': writable,
    'interfaces': [name for _, name in socket.if_nameindex()],
    'capabilities': sorted({line.split()[1] for line in status.splitlines() if line.startswith('Cap')}),
    'root': sorted(os.listdir('/')), 'processes': len([each for each in os.listdir('/proc') if each.isdigit()]),
    'told': [each for each in MASKED if reads(each)],
    'fds': len(os.listdir('/proc/self/fd')) - 1,
}))
"""


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    require("bwrap", "needs bubblewrap (apt-get install bubblewrap)")


async def run(target: Target, step: SandboxRun, stdin: bytes | None = None) -> RunOutput:
    async def blocks() -> AsyncIterator[bytes]:
        yield stdin or b""

    async with target.connect() as ex:
        return await ex.run_streaming(step, stdin=None if stdin is None else blocks())


async def test_nothing_of_the_host_is_there(target: Target) -> None:
    """ES1, ES12, IP1: no interface, no capability, no writable kernel setting, for root and plain user alike."""
    step = SandboxRun("look", ["/usr/bin/python3", "-c", LOOK], env={"A": Secret("b")}, read_only=SYSTEM, links=LINKS)
    out = await run(target, step)
    assert out.ok, out.stderr
    seen = json.loads(out.text)
    assert seen == {
        "uid": 1000,
        "env": {"A": "b", **{key: value for key, value in seen["env"].items() if key in ("PWD", "LC_CTYPE")}},
        "writable": [],
        "interfaces": ["lo"],
        "capabilities": ["0000000000000000"],
        "root": ["bin", "dev", "lib", "lib64", "proc", "usr"],
        "processes": 2,
        "told": [],
        "fds": 3,
    }


async def test_its_input_and_status_are_the_programs_own(target: Target) -> None:
    step = SandboxRun("cat", ["/bin/sh", "-c", "cat; exit 7"], read_only=SYSTEM, links=LINKS, stdin="first ")
    out = await run(target, step, b"then the rest")
    assert (out.text, out.exit_code) == ("first then the rest", 7)
    missing = await run(target, SandboxRun("none", ["/no/program"], read_only=SYSTEM, links=LINKS))
    assert missing.exit_code == 127
    assert b"/no/program" in missing.stderr


@pytest.fixture
def unix_echo(shared_dir: Path) -> Iterator[Path]:
    """A unix socket that answers what it hears, in capitals."""
    doors = shared_dir / "doors"
    doors.mkdir(mode=0o777)
    doors.chmod(0o777)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(doors / "echo.sock"))
    (doors / "echo.sock").chmod(0o666)
    server.listen()

    def serve() -> None:
        while True:
            try:
                made, _ = server.accept()
            except OSError:
                return
            with made:
                while block := made.recv(65536):
                    made.sendall(block.upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield doors
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


async def test_a_door_leads_to_its_socket_and_there_is_no_other(target: Target, unix_echo: Path) -> None:
    script = """
import socket
with socket.create_connection(('127.0.0.1', 8080), 5) as door:
    door.sendall(b'x' * 300000 + b'end'); door.shutdown(socket.SHUT_WR)
    heard = b''
    while block := door.recv(65536): heard += block
print(len(heard), heard[-3:].decode())
try: socket.create_connection(('127.0.0.1', 8081), 5)
except OSError as error: print(type(error).__name__)
"""
    step = SandboxRun(
        "door",
        ["/usr/bin/python3", "-c", script],
        read_only={**SYSTEM, "/run/doors": f"{unix_echo}/"},
        links=LINKS,
        doors={"8080": "/run/doors/echo.sock"},
    )
    out = await run(target, step)
    assert out.text == "300003 END\nConnectionRefusedError\n", out.stderr


async def test_cancelling_ends_it_whole(local: Target) -> None:
    """ES13: also what left its session and its parents."""
    from tests.parts.bottle_running import gone, processes_with

    script = "setsid sh -c 'sleep 4242 & sleep 4242' & exec sleep 4242"
    step = SandboxRun("sleepers", ["/bin/sh", "-c", script], read_only=SYSTEM, links=LINKS)
    running = asyncio.create_task(run(local, step))
    await eventually(lambda: len(processes_with(b"sleep\x004242")) >= 3, within_s=10, what="the program has started")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gone(b"sleep\x004242")


async def test_a_set_that_names_other_sandboxes_starts_none(local: Target, tmp_path: Path) -> None:
    from opsexec import CapabilityDenied, LocalExec

    granted = CapabilitySet.of("sandbox.run:other", "fs.read:/usr/**")
    async with LocalExec(capabilities=granted, audit=local.audit) as ex:
        with pytest.raises(CapabilityDenied, match=r"sandbox\.run:mine"):
            await ex.run(SandboxRun("mine", ["true"], read_only=SYSTEM, links=LINKS))
        with pytest.raises(CapabilityDenied, match=r"sandbox\.network:other"):
            await ex.run(SandboxRun("other", ["true"], read_only=SYSTEM, links=LINKS, network=True))


async def test_a_file_that_it_only_reads_it_can_keep_locked(target: Target, shared_dir: Path) -> None:
    """What isn't promised: a host's program that waits for such a lock waits as long as the sandbox likes."""
    shared_dir.chmod(0o755)
    file = shared_dir / "tree" / "file"
    file.parent.mkdir(mode=0o755)
    file.write_text("x")
    file.chmod(0o644)
    script = "import fcntl, sys; file = open('/tree/file'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True)"
    script += "; sys.stdin.read()"
    step = SandboxRun(
        "lock", ["/usr/bin/python3", "-c", script], read_only={**SYSTEM, "/tree": f"{file.parent}/"}, links=LINKS
    )
    held = asyncio.Event()

    class Heard:
        async def write(self, stream: str, data: bytes) -> None:
            held.set()

    seen = []

    async def until_seen() -> AsyncIterator[bytes]:
        await held.wait()
        with file.open() as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append("would wait")
        yield b""

    async with target.connect() as ex:
        assert (await ex.run_streaming(step, Heard(), stdin=until_seen())).ok
    assert seen == ["would wait"]
    with file.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with it
