"""A `dockerd` of the test's own: where its programs are, how it is started, and how they are asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import SYSTEM_DIRS
from tests.parts.waiting import eventually_now

START_S = 90.0
STOP_S = 40.0


def program(name: str) -> str | None:
    """Where a program is, also in the system's directories that a user's PATH leaves out; None where it isn't."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRS}")


def asked(
    words: Sequence[str], socket: Path | None, *, within_s: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the docker command line against the engine at a socket, None = the machine's own."""
    env = {**os.environ, **({"DOCKER_HOST": f"unix://{socket}"} if socket else {})}
    argv = [program("docker") or "docker", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=within_s, check=False)
    assert not check or done.returncode == 0, f"docker {words[:2]}: {done.stderr[-2000:]}"
    return done


def answers(socket: Path | None) -> bool:
    """True when an engine is there."""
    words = ["version", "--format", "{{.Server.Version}}"]
    return asked(words, socket, within_s=20, check=False).returncode == 0


def start_dockerd(home: Path, *options: str, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start an engine that keeps everything below `home`, wait until it answers at `docker.sock` there, and return it.

    `within`: the words of a program that starts it, like one that enters a namespace.
    """
    socket = home / "docker.sock"
    argv = [*within, program("dockerd") or "dockerd", "--host", f"unix://{socket}", "--data-root", f"{home}/data"]
    argv += ["--exec-root", f"{home}/exec", "--pidfile", f"{home}/dockerd.pid", *options]
    with (home / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        eventually_now(
            lambda: process.poll() is not None or (socket.exists() and answers(socket)),
            within_s=START_S,
            what="dockerd answers",
        )
        assert process.poll() is None, (home / "dockerd.log").read_text()[-2000:]
    except BaseException:
        stop_dockerd(process)
        raise
    return process


def stop_dockerd(process: subprocess.Popen[bytes]) -> None:
    """End an engine that was started here; what ran in it ends as well."""
    if process.poll() is None:
        process.terminate()
    process.wait(STOP_S)
