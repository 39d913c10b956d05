"""Out of the sandbox, and all over the machine: tried in a bottle of root's and in one of a plain user's."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsexec.far.sandbox_keep import OVER
from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, identity_in, processes_with, require_bottles
from tests.parts.plain_bottles import plain_bottles
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

BOTTLE = "egress:\n  routes:\n    - host: api.test\n      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}\n"
INSIDE = (
    (Path(__file__).parents[1] / "parts" / "bottle_escaping.py")
    .read_text("utf-8")
    .replace("from __future__ import annotations", "")
)
PROCESSES, MEMORY = 100, 400 << 20
LIMITS = ["--limit", f"processes={PROCESSES}", "--limit", f"memory={MEMORY}"]
OPERATORS = {
    "SSH_AUTH_SOCK": "/tmp/agent.sock",
    "DBUS_SESSION_BUS_ADDRESS": "unix:abstract=bus",
    "DISPLAY": ":0",
    "GPG_AGENT_INFO": "/tmp/gpg",
}


@dataclass
class Tried:
    """What one agent tried, and the host's settings before and after."""

    answers: dict[str, Any]
    bottles: Bottles
    kernel: tuple[dict[str, str], dict[str, str]]


def kernel() -> dict[str, str]:
    """What must not change on the host."""
    found = {path: Path(path).read_text() for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname")}
    return found | {"clock": str(abs(time.time() - time.monotonic()) // 3600)}


OUT = "\nfound['out'] = escapes({abstract!r})\n"
AFTER = "found['after'] = get('https://api.test/after')[0]\n"
USING_UP = """
found['before'] = get('https://api.test/before')[0]
found['bomb'], pids = bomb({most})
found['during'] = tried(lambda: socket.create_connection(PROXY, 5) and 'open')
import signal
for pid in pids: os.kill(pid, signal.SIGKILL)
for pid in pids: os.waitpid(pid, 0)
found['memory'] = swallow({memory})
found['after memory'] = get('https://api.test/memory')[0]
found['full'] = [fill(place, 600 << 20) for place in ('/tmp', '/dev/shm', '/var/tmp')]
"""


@pytest.fixture(scope="module", params=["root", "user"])
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    """A home root of root's, or of a plain user's."""
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("api.test",)) as upstream:
        if request.param == "root":
            require(os.geteuid() == 0, "needs root")
            root = HomeRoot(tmp_path_factory.mktemp("home") / "root")
            root.bottle("dev", BOTTLE)
            root.agent("worker", "bottle: dev\n")
            yield Bottles(root, upstream, env=dict(OPERATORS))
            return
        user = request.getfixturevalue("plain_user")
        with tempfile.TemporaryDirectory(prefix="plain-") as name:
            Path(name).chmod(0o755)
            made = plain_bottles(Path(name), user, upstream, dev=BOTTLE)
            made.env = dict(OPERATORS)
            yield made


@pytest.fixture(scope="module")
def using_up() -> str:
    """What is tried of its bounds, once it has tried to get out."""
    return USING_UP.format(most=PROCESSES * 3, memory=MEMORY * 2)


@pytest.fixture(scope="module")
def tried(bottles: Bottles, using_up: str) -> Iterator[Tried]:
    outside = f"outside-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + outside)
        listener.listen()
        before = kernel()
        script = OUT.format(abstract=outside) + using_up + AFTER
        ended = bottles.script("worker", INSIDE + script, *LIMITS)
        assert ended.code == 0, ended.stderr[-2000:]
        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()
        yield Tried(ended.answers, bottles, (before, kernel()))


def test_es1_no_setting_of_the_host_is_written(tried: Tried) -> None:
    out = tried.answers["out"]
    assert "None" not in out["settings"].values(), out["settings"]
    assert tried.kernel[0] == tried.kernel[1]
    assert out["spared"] == ["PermissionError", "1000"]


def test_es2_no_namespace_no_mount_no_other_root(tried: Tried) -> None:
    found = tried.answers["out"]["namespaces"]
    assert set(found["unshare"] + found["setns"]) == {-1}
    assert found["programs"] == [False, False, False]
    assert found["chroot"] == "PermissionError"


def test_es3_nobody_else_s_memory_is_read(tried: Tried) -> None:
    found = tried.answers["out"]["first process"]
    for what in ("memory", "environment", "descriptors", "root"):
        assert found[what] == "PermissionError", what
    assert found["traced"] == -1


def test_es4_setuid_programs_gain_nothing(tried: Tried) -> None:
    found = tried.answers["out"]["setuid"]
    assert not found["became root"]
    assert found["no new privileges"]
    assert set(found["capabilities"]) == {"0000000000000000"}


def test_es5_a_fork_bomb_is_bounded_and_the_gate_goes_on(tried: Tried) -> None:
    assert 10 < tried.answers["bomb"] < PROCESSES
    assert tried.answers["during"] == "'open'"
    assert tried.answers["before"] == tried.answers["after"] == 200


def test_es6_memory_is_bounded_and_the_gate_goes_on(tried: Tried) -> None:
    assert tried.answers["memory"] in ("killed", "refused")
    assert tried.answers["after memory"] == 200
    assert [request.path for request in tried.bottles.upstream.requests][-2:] == ["/memory", "/after"]


def test_es7_temporary_files_are_bounded_and_the_gate_goes_on(tried: Tried) -> None:
    assert tried.answers["full"] == ["No space left on device"] * 3
    assert tried.answers["after"] == 200


def test_es10_there_is_no_terminal_and_none_is_typed_into(tried: Tried) -> None:
    assert tried.answers["out"]["terminal"] == ["OSError", "PermissionError"]


def test_es12_no_descriptor_and_no_program_of_the_runtime_is_in_sight(tried: Tried) -> None:
    out = tried.answers["out"]
    assert out["descriptors"] == [0, 1, 2]
    assert out["program"].startswith("/usr/bin/python3")
    assert not [words for words in out["in sight"] if "bwrap" in words or str(tried.bottles.root.path) in words]


def test_es13_its_first_process_isn_t_ended_and_its_supervisor_isn_t_there(tried: Tried) -> None:
    assert not [words for words in tried.answers["out"]["in sight"] if "sidecars" in words]
    assert tried.answers["after"] == 200  # after SIGKILL and SIGSTOP to PID 1


def test_es15_the_clock_is_the_host_s(tried: Tried) -> None:
    assert tried.answers["out"]["clock"] == ["PermissionError", False]


def test_nb8_nb9_no_socket_of_the_host_is_reached_or_named(tried: Tried) -> None:
    found = tried.answers["out"]["sockets"]
    assert found == {"abstract": "ConnectionRefusedError", "known": [], "named": [], "there": []}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are tried by their numbers on x86_64")
@pytest.mark.attack("ES2")
def test_the_kernel_s_own_doors_are_closed(tried: Tried) -> None:
    assert tried.answers["out"]["setuid"]["filtered"]
    assert tried.answers["out"]["kernel"] == {
        **dict.fromkeys(("bpf", "perf", "userfaultfd", "keys"), "Operation not permitted"),
        **dict.fromkeys(("lease", "line discipline"), "Operation not permitted"),
        **dict.fromkeys(("aio", "io_uring", "clone3", "newer than known"), "Function not implemented"),
        **dict.fromkeys(("vsock", "packet", "crypto", "bluetooth"), "Address family not supported by protocol"),
    }


FILL = {
    "ES7": "for at in range(300):\n    open(f'/home/agent/{at}', 'wb').write(bytes(1 << 20)); time.sleep(0.005)",
    "ES8": "for at in range(30000):\n    os.mkdir(f'/home/agent/{at}'); time.sleep(0.0005)",
}


@pytest.mark.parametrize("attack", FILL)
def test_a_home_that_fills_the_disk_ends_its_bottle(bottles: Bottles, attack: str) -> None:
    program = ["/usr/bin/python3", "-c", "import os, time\n" + FILL[attack] + "\nprint('all of it')\ntime.sleep(30)"]
    ended = bottles.run("worker", program, "--limit", "home=32m", "--limit", "files=2000")
    assert ended.code == OVER, ended.stderr
    assert "all of it" not in ended.stdout
    assert ": ended" in ended.stderr
    home = bottles.state(ended.identity) / "home"
    used = sum(each.lstat().st_blocks * 512 for each in home.rglob("*"))
    assert used < 200 << 20
    assert len(list(home.iterdir())) < 30000


@pytest.mark.attack("ES11")
def test_no_core_of_anything_in_a_bottle_is_written(bottles: Bottles) -> None:
    """Told by the kernel's own table of limits, for each process of a living bottle, gates included."""
    launcher = bottles.begin("worker", ["/bin/sleep", "300"])
    try:
        (identity,) = [each.name for each in (bottles.root.path / "state").iterdir() if _alive(each)]
        mark = f"BOTTLE_IDENTITY={identity}".encode()
        eventually_now(lambda: len(processes_with(mark)) >= 3, within_s=10, what="supervisor, gate and agent are there")
        pids = processes_with(mark)
        for pid in pids:
            (line,) = [each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in each]
            if int(pid) != launcher.pid:
                assert line.split()[4:6] == ["0", "0"], line
    finally:
        launcher.terminate()
        _, said = launcher.communicate(timeout=30)
    assert identity_in(said) in ("", identity)


def _alive(state: Path) -> bool:
    return '"running"' in (state / "metadata.json").read_text()
