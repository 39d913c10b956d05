"""Trees to copy, what they look like, and a copy by each of the two mechanisms without any host between."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opsexec.far import copy_pipe
from opsexec.far.copy_pipe import Pipe, send_failure
from opsexec.far.exclude import Excludes
from opsexec.far.message import FarError, unpack_message
from opsexec.far.tar_local import _destination, _source
from opsexec.far.tree_receive import Receiver
from opsexec.far.tree_send import Sender


@dataclass(frozen=True)
class File:
    content: bytes = b""
    mode: int = 0o644
    mtime: int = 10**18


@dataclass(frozen=True)
class Link:
    target: bytes = b"a"
    mtime: int = 10**18


@dataclass(frozen=True)
class Dir:
    entries: Mapping[bytes, File | Link | Dir] = field(default_factory=dict)
    mode: int = 0o755
    mtime: int = 10**18


Node = File | Link | Dir


def plant(path: bytes, node: Node) -> None:
    """Make this node at the path."""
    if isinstance(node, Link):
        os.symlink(node.target, path)
    elif isinstance(node, File):
        Path(os.fsdecode(path)).write_bytes(node.content)
        os.chmod(path, node.mode)
    else:
        os.mkdir(path)
        for name, entry in node.entries.items():
            plant(path + b"/" + name, entry)
        os.chmod(path, node.mode)
    os.utime(path, ns=(node.mtime, node.mtime), follow_symlinks=False)


RECENT = 16 * 10**17
"""Later than any time a test plants, in nanoseconds: what came about while the test ran."""


def snapshot(top: bytes, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """What stands at and below a path: kind, mode, owner, content or target, time in nanoseconds (RECENT: by now)."""
    found: dict[bytes, tuple[object, ...]] = {}
    pending = [b""]
    while pending:
        name = pending.pop()
        path = top + b"/" + name if name else top
        info = os.lstat(path)
        what: object = None
        if stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            what = Path(os.fsdecode(path)).read_bytes()
        else:
            pending += [name + b"/" + os.fsencode(n) if name else os.fsencode(n) for n in os.listdir(path)]
        mode = 0 if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
        found[name] = (
            stat.S_IFMT(info.st_mode),
            mode,
            info.st_uid,
            info.st_gid,
            what,
            min(info.st_mtime_ns, RECENT) if times else 0,
        )
    return found


@dataclass
class Copied:
    """What a copy said of itself."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failure: list[str] | None = None
    sent: int = 0
    sending: str = ""


def copy_by_rsync(
    src: bytes, dst: bytes, *, delete: bool, check: bool, excludes: Sequence[str], distrust: bool
) -> tuple[int, Copied]:
    """The machine's own rsync, with the options that both mechanisms stand for; returns its status too."""
    argv = [b"rsync", b"-a", b"--no-D", b"-i", b"--info=name1", b"--out-format== %i %n%L"]
    argv += [b"--delete"] if delete else []
    argv += [b"--dry-run"] if check else []
    argv += [b"--safe-links", b"--chmod=Fug-s"] if distrust else []
    argv += [b"--exclude=" + os.fsencode(pattern) for pattern in excludes]
    done = subprocess.run(
        [*argv, b"--", src, dst], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    said = Copied(problems=done.stderr.decode("utf-8", "replace").splitlines())
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith("= "):
            said.lines.append(line[2:])
        elif line.startswith(("skipping non-regular", "ignoring unsafe")):
            said.skipped.append(line)
    return done.returncode, said


def copy_by_tar(
    src: bytes,
    dst: bytes,
    *,
    delete: bool = False,
    check: bool = False,
    excludes: Sequence[str] = (),
    push: bool = False,
) -> Copied:
    """Both ends of our own mechanism, in two threads, a pipe each way."""
    from opsexec.hosts.copy_report import shown

    to_receiver, from_sender = os.pipe()
    to_sender, from_receiver = os.pipe()
    said = Copied()
    patterns = Excludes(os.fsencode(pattern) for pattern in excludes)
    ends = {"sender": (to_sender, from_sender), "receiver": (to_receiver, from_receiver)}

    def send() -> None:
        pipe = Pipe(*ends["sender"])
        sender = None
        try:
            sender = Sender(pipe, *_source(src), patterns)
            sender.send_list()
            wanted = sender.wanted(lambda kind, payload: None)
            said.sent = len(wanted)
            sender.stream(wanted)
        except BrokenPipeError:
            return
        except (FarError, OSError) as error:
            said.sending = repr(error)
            if not (isinstance(error, FarError) and error.code == "cut"):
                send_failure(pipe, FarError("sender", str(error)))
        finally:
            os.close(from_sender)
            if sender is not None:
                sender.directories.close()

    reading, writing = os.pipe()
    frames: list[tuple[int, bytes]] = []

    def listen() -> None:
        pipe = Pipe(reading, -1)
        while True:
            try:
                kind, payload = pipe.receive()
            except FarError as error:
                if error.code != "cut":
                    said.failure = [error.code, error.text, *error.details]
                return
            frames.append((kind, payload))

    threads = [threading.Thread(target=send), threading.Thread(target=listen)]
    for thread in threads:
        thread.start()
    results = Pipe(-1, writing)
    name = src.rpartition(b"/")[2]
    parent = -1
    try:
        parent, destination = _destination(dst)
        Receiver(
            Pipe(*ends["receiver"]),
            results,
            parent,
            destination,
            patterns,
            inside=dst.endswith(b"/"),
            only=b"" if name in (b"", b".", b"..") else name,
            check=check,
            delete=delete,
            pushing=push,
        ).receive()
    except FarError as error:
        send_failure(results, error)
    except OSError as error:
        send_failure(results, FarError("os", str(error)))
    finally:
        for fd in (writing, to_receiver, from_receiver):
            os.close(fd)
        for thread in threads:
            thread.join()
        os.close(reading)
        os.close(to_sender)
        if parent >= 0:
            os.close(parent)
    for kind, payload in frames:
        if kind in (copy_pipe.CHANGES, copy_pipe.SKIPPED, copy_pipe.PROBLEM):
            lines = [shown(line) for line in unpack_message(payload)]
            {copy_pipe.CHANGES: said.lines, copy_pipe.SKIPPED: said.skipped, copy_pipe.PROBLEM: said.problems}[
                kind
            ].extend(lines)
    return said


def wipe(path: bytes) -> None:
    """Remove whatever stands at a path."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
