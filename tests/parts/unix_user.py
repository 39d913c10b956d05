"""Plain unix users, made for the time of a test."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def current_user() -> str:
    """Name of the user that runs this process."""
    return pwd.getpwuid(os.geteuid()).pw_name


@contextlib.contextmanager
def unix_user(name: str | None = None, *, shell: str = "/bin/bash", home: bool = True) -> Iterator[str]:
    """A plain unix user for the time of the block (needs root); its processes and home go with it."""
    if os.geteuid() != 0:
        raise PermissionError("making a unix user needs root")
    name = name or f"ops{os.getpid()}x{time.monotonic_ns() % 100000}"
    # '*' and not '!': without PAM sshd refuses accounts whose password field says locked.
    subprocess.run(["useradd", "-m" if home else "-M", "-s", shell, "-p", "*", name], check=True, capture_output=True)
    try:
        yield name
    finally:
        _kill_user(name)
        subprocess.run(["userdel", "-f", *(["-r"] if home else []), name], check=True, capture_output=True)


def _kill_user(name: str) -> None:
    uid = pwd.getpwnam(name).pw_uid
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)
