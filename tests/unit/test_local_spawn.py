"""Starting one process: what vfork and the C library's posix_spawn do must be what `subprocess` would have done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from opsexec.hosts import local_spawn, local_vfork
from opsexec.hosts.local_spawn import Child, SpawnedChild, Streams

Open = Callable[[], tuple[int, Streams]]


start = partial(local_spawn.start, may_hang=False)


@pytest.fixture(params=["vfork", "posix_spawn", "subprocess"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the three ways; the last as on a machine whose C library and Python can't."""
    if request.param != "vfork":
        monkeypatch.setattr(local_spawn, "vfork_exec", lambda: None)
    elif local_vfork.vfork_exec() is None:
        pytest.skip("the arguments of this Python's own starter aren't known")
    if request.param == "subprocess":
        monkeypatch.setattr(local_spawn, "_library", lambda: None)
    elif local_spawn._library() is None:
        pytest.skip("this C library's posix_spawn can't set the working directory")
    return str(request.param)


@pytest.fixture
def streams() -> Iterator[Open]:
    """Open descriptors for a child whose stdout is a pipe: (where to read, the child's three)."""
    opened: list[int] = []

    def make() -> tuple[int, Streams]:
        null = os.open(os.devnull, os.O_RDWR)
        reading, writing = os.pipe()
        opened.extend((null, reading, writing))
        return reading, (null, writing, null)

    yield make
    for fd in opened:
        os.close(fd)


def said(streams: Open, script: str, cwd: str = "/", env: dict[str, str] | None = None) -> str:
    """Run a script of this Python and return what it printed."""
    reading, three = streams()
    child = start(sys.executable, [sys.executable, "-S", "-E", "-c", script], env or {}, cwd, three)
    assert child.wait() == 0
    return os.read(reading, 65536).decode()


def test_the_child_gets_its_directory_and_its_environment_whole(way: str, streams: Open, tmp_path: Path) -> None:
    script = "import os; print(os.getcwd(), sorted(os.environ.items()))"
    printed = said(streams, script, str(tmp_path), {"A": "1", "LC_CTYPE": "C.UTF-8", "B": "zwei = ü"})
    assert printed == f"{tmp_path} [('A', '1'), ('B', 'zwei = ü'), ('LC_CTYPE', 'C.UTF-8')]\n"


def test_the_child_leads_a_session_of_its_own(way: str, streams: Open) -> None:
    assert said(streams, "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))") == "True\n"


def test_the_child_inherits_three_descriptors_and_no_others(way: str, streams: Open) -> None:
    kept = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        printed = said(streams, "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1])")
    finally:
        os.close(kept)
    assert printed == "[0, 1, 2]\n"


def test_the_child_dies_of_a_broken_pipe_as_programs_do(way: str, streams: Open) -> None:
    # Python ignores these two signals, and what is ignored stays so in a program that is started.
    reading, three = streams()
    child = start("/bin/grep", ["grep", "SigIgn", "/proc/self/status"], {}, "/", three)
    assert child.wait() == 0
    found = int(os.read(reading, 4096).split()[1], 16)
    assert not found & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", -9)])
def test_its_end_is_told(way: str, streams: Open, script: str, status: int) -> None:
    _, three = streams()
    child = start("/bin/sh", ["sh", "-c", script], {}, "/", three)
    assert child.wait() == status
    assert child.poll() == status


def test_a_running_child_has_no_status_yet(way: str, streams: Open) -> None:
    _, three = streams()
    child = start("/bin/sleep", ["sleep", "60"], {}, "/", three)
    assert child.poll() is None
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def test_a_directory_that_is_not_there_is_named(way: str, streams: Open, tmp_path: Path) -> None:
    _, three = streams()
    gone = str(tmp_path / "gone")
    with pytest.raises(FileNotFoundError) as caught:
        start("/bin/true", ["true"], {}, gone, three)
    assert caught.value.filename == gone


def test_a_program_that_is_none_is_named(way: str, streams: Open, tmp_path: Path) -> None:
    _, three = streams()
    text = tmp_path / "text"
    text.write_text("not a program\n")
    text.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error") as caught:
        start(str(text), ["text"], {}, "/", three)
    assert caught.value.filename != "/"


@pytest.mark.parametrize(
    ("program", "argv", "env", "cwd"),
    [
        ("/bin/true\0x", ["true"], {}, "/"),
        ("/bin/true", ["true", "a\0b"], {}, "/"),
        ("/bin/true", ["true"], {"A": "a\0b"}, "/"),
        ("/bin/true", ["true"], {"A\0B": "a"}, "/"),
        ("/bin/true", ["true"], {"A=B": "a"}, "/"),
        ("/bin/true", ["true"], {}, "/tmp\0/x"),
    ],
)
def test_nothing_is_cut_short_at_a_nul(
    way: str, streams: Open, program: str, argv: list[str], env: dict[str, str], cwd: str
) -> None:
    _, three = streams()
    with pytest.raises(ValueError, match=r"null byte|illegal environment variable name"):
        start(program, argv, env, cwd, three)


def echoed_without(closed: int, out: Path, how: str) -> str:
    """What a program wrote to a file, started by a process that has closed one of its own three descriptors."""
    code = (
        "import os, sys\n"
        f"os.close({closed})\n"
        "out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        f"assert out == {closed}\n"
        "from opsexec.hosts.local_spawn import start\n"
        "null = os.open('/dev/null', os.O_RDWR)\n"
        f"{how}\n"
        "assert child.wait() == 0\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(out)], check=False).returncode == 0
    return out.read_text()


def test_low_descriptors_are_not_trampled_on(tmp_path: Path) -> None:
    """With stdin closed the child's stdout may be descriptor 0, which becoming stdin would close."""
    how = "child = start('/bin/echo', ['echo', 'hi'], {}, '/', (null, out, null))"
    assert echoed_without(0, tmp_path / "out", how) == "hi\n"


def test_a_start_without_a_stderr_of_its_own_goes_another_way(tmp_path: Path) -> None:
    how = (
        "high = os.dup(out)\n"
        "os.close(2)\n"
        "child = start('/bin/echo', ['echo', 'hi'], {}, '/', (null, high, null), may_hang=False)"
    )
    assert echoed_without(2, tmp_path / "out", how) == "hi\n"


def test_this_machine_uses_posix_spawn_where_glibc_can(streams: Open) -> None:
    version = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else None
    if version is None or tuple(map(int, version.split()[1].split("."))) < (2, 34):
        pytest.skip("not a glibc of 2.34 or later")
    _, three = streams()
    child = start("/bin/true", ["true"], {}, "/", three)
    assert child.wait() == 0
    assert isinstance(child, SpawnedChild)


@pytest.fixture
def vfork(monkeypatch: pytest.MonkeyPatch) -> local_vfork.VforkExec:
    """This thread's starter by vfork, with no other way beside it."""
    starter = local_vfork.vfork_exec()
    if starter is None:
        pytest.skip("the arguments of this Python's own starter aren't known")
    monkeypatch.setattr(local_spawn, "_library", lambda: None)
    return starter


def true_by(starter: local_vfork.VforkExec, three: Streams, program: bytes = b"/bin/true", cwd: bytes = b"/") -> int:
    return starter.start(program, [b"true"], [], cwd, three)


def reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_start_that_failed_leaves_no_child_and_no_word_to_the_next(
    vfork: local_vfork.VforkExec, streams: Open, tmp_path: Path
) -> None:
    _, three = streams()
    text = tmp_path / "text"
    text.write_text("not a program\n")
    text.chmod(0o755)
    for _ in range(3):
        assert true_by(vfork, three, program=os.fsencode(text)) == 0
        assert true_by(vfork, three, cwd=os.fsencode(tmp_path / "gone")) == 0
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        pid = true_by(vfork, three)
        assert pid
        assert reaped(pid) == 0


def test_a_signal_ignored_here_is_not_ignored_in_the_program(streams: Open) -> None:
    """As under nohup, or in the background of a shell without job control."""
    reading, three = streams()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child: Child = start("/bin/grep", ["grep", "SigIgn", "/proc/self/status"], {}, "/", three)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert child.wait() == 0
    assert not int(os.read(reading, 4096).split()[1], 16) & 1 << signal.SIGHUP - 1


def test_a_start_during_another_threads_goes_another_way(vfork: local_vfork.VforkExec, streams: Open) -> None:
    _, three = streams()
    with vfork._taken:
        assert true_by(vfork, three) == 0
    assert reaped(true_by(vfork, three)) == 0


def test_many_threads_know_their_own_failures_only(vfork: local_vfork.VforkExec, streams: Open) -> None:
    _, three = streams()
    wrong: list[str] = []
    began: list[int] = []

    def begin(good: bool) -> None:
        starter = local_vfork.vfork_exec()
        assert starter is not None
        for _ in range(100):
            pid = true_by(starter, three, cwd=b"/" if good else b"/gone")  # 0, too, while another thread starts one
            if pid:
                began.append(pid)
            if pid and (not good or reaped(pid)):
                wrong.append(f"{good} {pid}")

    threads = [threading.Thread(target=begin, args=(at % 2 == 0,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert began, "none was started this way"


def test_a_forked_child_has_a_starter_of_its_own(vfork: local_vfork.VforkExec) -> None:
    pid = os.fork()
    if not pid:
        other = local_vfork.vfork_exec()
        os._exit(0 if other is not None and other is not vfork else 1)
    assert reaped(pid) == 0
    assert local_vfork.vfork_exec() is vfork


def test_what_may_hang_is_not_started_by_vfork(monkeypatch: pytest.MonkeyPatch, streams: Open) -> None:
    """The interpreter stands still meanwhile, and with it every deadline."""

    def never() -> None:
        raise AssertionError("asked for vfork")

    monkeypatch.setattr(local_spawn, "vfork_exec", never)
    _, three = streams()
    assert local_spawn.start("/bin/true", ["true"], {}, "/", three, may_hang=True).wait() == 0
    with pytest.raises(AssertionError, match="asked for vfork"):
        start("/bin/true", ["true"], {}, "/", three)


def test_the_arguments_are_known_for_this_python() -> None:
    if sys.platform != "linux" or sys.version_info[:2] not in local_vfork.KNOWN:
        pytest.skip("a Python whose starter isn't used")
    assert local_vfork.vfork_exec() is not None
