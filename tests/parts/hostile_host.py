"""A host that means harm: behind a real sshd, a login whose shell is a program of the test's own.

It is started with the session's start line like any login shell, reads what the caller sends, and answers as the test
says: each test hands over the Python lines of its attack.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsexec.far import frames
from tests.parts.unix_user import unix_user

PRELUDE = f"""#!/usr/bin/python3 -IS
import os, re, struct, sys, time
HELLO, OUTPUT, ERRORS, EXIT, ANSWER, FAILED, TAKEN, ENDED = range({frames.HELLO}, {frames.ENDED + 1})
SPAWN, INPUT, CREDIT, END, RESIZE, CALL, SOURCES, BEAT = range({frames.SPAWN}, {frames.BEAT + 1})
def read(size):
    data = b""
    while len(data) < size:
        block = os.read(0, min(65536, size - len(data)))
        if not block: os._exit(0)
        data += block
    return data
def say(data):
    view = memoryview(data)
    while view: view = view[os.write(1, view):]
def frame(kind, ref, payload=b""): say(struct.pack(">BII", kind, ref, len(payload)) + payload)
def message(*items): return struct.pack(">I", len(items)) + b"".join(struct.pack(">I", len(i)) + i for i in items)
stage = read(320).decode()
nonce = re.search("N='(.*?)'", stage).group(1).encode().decode("unicode_escape").encode()
read(int(re.search(r"r\\((\\d+)\\)\\)", stage).group(1)))
def greet():
    say(nonce)
    frame(HELLO, 0, message(b"1", b"3.11.0", b"1", b"0"))
def asked(*kinds):
    while True:
        kind, ref, size = struct.unpack(">BII", read(9))
        payload = read(size)
        if kind in kinds: return kind, ref, payload
"""


@dataclass(frozen=True)
class HostileHost:
    """`user` is the login to use; what its shell does is set by `does`."""

    user: str
    shell: Path

    def does(self, attack: str) -> None:
        """From now on each session runs these lines; `greet`, `asked`, `frame`, `say` and `message` are at hand."""
        fd = os.open(self.shell, os.O_WRONLY | os.O_TRUNC)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(PRELUDE + attack)


@contextlib.contextmanager
def hostile_host() -> Iterator[HostileHost]:
    """A login on this machine for the time of the block (needs root)."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shell = directory / "shell"
        shell.touch()
        shell.chmod(0o755)
        with unix_user(shell=str(shell)) as user:
            yield HostileHost(user, shell)
