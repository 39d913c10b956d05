"""What the tests of copies share: the ways to carry one, a tree worth copying, and a copy slow enough to disturb."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsexec import Pull, Push, RunOutput
from opsexec.host_executor import HostExecutor
from opsexec.hosts.watchdog import Watchdog
from tests.parts.process_tree import descendants
from tests.parts.sshd import Sshd
from tests.parts.sync_trees import Dir, File, Link
from tests.parts.targets import Target
from tests.parts.waiting import eventually

CARRIERS = ("rsync", "rsync-held", "tar")
"""`rsync-held`: the grants end somewhere, so the kernel holds rsync to them. `tar`: this machine has no rsync."""

TREE = Dir(
    {
        b"plain": File(b"content", 0o640),
        b"empty": File(),
        b"sent 12 bytes": File(b"1"),
        b"line\nfeed": File(b"2"),
        b"not utf-8 \xff": File(b"3"),
        b"-dash": File(b"4", 0o755),
        b"big": File(b"0123456789abcdef" * 40000, mtime=1_500_000_000_123_456_789),
        b"link": Link(b"plain"),
        b"d": Dir({b"e": Dir({b"f": File(b"deep")}, 0o700), b"up": Link(b"../plain")}, 0o750),
    }
)


@dataclass(frozen=True)
class Scene:
    """One way to one host. `shared`: a directory that every login may use."""

    target: Target
    carrier: str
    shared: Path

    @property
    def method(self) -> str:
        """What the answer should name."""
        return "tar" if self.carrier == "tar" else "rsync"

    def connect(self, *capabilities: str, run_as: tuple[str, ...] = ()) -> HostExecutor:
        """An executor with these grants; without any, with those that let this carrier work."""
        if not capabilities and self.carrier == "rsync-held":
            capabilities = (f"sync.push:{self.shared}/**", f"sync.pull:{self.shared}/**")
        return self.target.connect(*capabilities, run_as=run_as)


def without_rsync(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process find no rsync: its PATH leads to a directory of what these tests need alone."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("runuser", "sudo", "visudo", "mount", "umount"):
        found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if found:
            (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))


def copy_processes(sshd: Sshd | None) -> set[int]:
    """Pids of all that this process and the server's connections started."""
    roots = [os.getpid()]
    if sshd is not None and sshd.process is not None:
        roots.append(sshd.process.pid)
    return {each.pid for root in roots for each in descendants(root) if each.state not in "ZX"}


@contextmanager
def nothing_left(sshd: Sshd | None, within_s: float = 1.0) -> Iterator[None]:
    """What the block starts is gone within this many seconds of its end."""
    Watchdog.get()  # one a process, from its first copy to its end
    before = copy_processes(sshd)
    yield
    end = time.monotonic() + within_s
    while left := copy_processes(sshd) - before:
        if time.monotonic() > end:
            raise AssertionError(f"still there after {within_s:g} s: {[_command(pid) for pid in left]}")
        time.sleep(0.01)


def _command(pid: int) -> str:
    try:
        return (
            f"{pid} " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:150]
        )
    except OSError:
        return f"{pid} (gone)"


def rsyncs_and_ends(sshd: Sshd | None) -> dict[str, list[int]]:
    """Pids of this machine's own end of a copy (`here`) and of the host's (`there`)."""
    found: dict[str, list[int]] = {"here": [], "there": []}
    for pid in copy_processes(sshd):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        text = b" ".join(words)
        if words[0].endswith(b"rsync"):
            found["there" if b"--server" in words else "here"].append(pid)
        elif b"opsexec.far.tar_local" in text:
            found["here"].append(pid)
    return found


SLOW = 512 << 10
"""Bytes a second: rsync shows a file only once it has 256 KiB of it."""


def slow_file(path: Path) -> None:
    """Make a file that takes a minute at that rate."""
    with path.open("wb") as file:
        file.truncate(60 * SLOW)


class Slow:
    """A copy that takes a minute, under way: its first bytes are at the destination."""

    def __init__(
        self, scene: Scene, ex: HostExecutor, *, timeout_s: float | None = None, kind: type[Push | Pull] = Push
    ) -> None:
        self.source = scene.shared / "slow-source"
        self.dst = scene.shared / "slow-dst"
        self.source.mkdir()
        self.dst.mkdir()
        self.dst.chmod(0o777)
        slow_file(self.source / "file")
        step = kind(f"{self.source}/", f"{self.dst}/", bandwidth_bytes_s=SLOW, timeout_s=timeout_s)
        self.task: asyncio.Task[RunOutput] = asyncio.create_task(ex.run(step))

    async def under_way(self) -> None:
        """Wait until a part of the file is there."""
        await self.reached(lambda: any(path.stat().st_size for path in self._parts()))

    def _parts(self) -> list[Path]:
        return [path for path in self.dst.iterdir() if path.name.startswith(".")]

    async def reached(self, look: Callable[[], bool]) -> None:
        """Wait for something, or for the copy to fail before."""
        await eventually(lambda: self.task.done() or look(), within_s=20, what="the copy is under way")
        if self.task.done():
            self.task.result()
            raise AssertionError("the copy was over before it could be disturbed")

    def left_at_destination(self) -> list[str]:
        """What is there that a copy that failed should have taken away."""
        return [path.name for path in self.dst.iterdir()]
