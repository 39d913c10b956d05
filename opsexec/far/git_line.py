"""A login at the upstream that several gits use in turn: OpenSSH's own multiplexing, ended with its owner."""

from __future__ import annotations

import os

from opsexec.far.git_run import LINE, Declared, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LEAVE_S = 2.0
LOOK_S = 0.004


class Line:
    """`control`: where it is found, once it is there. Nothing is asked for over it before somebody does.

    Where it doesn't come about git logs in by itself, and says why that fails. `shared`: at a place that other steps on
    this repository find; else its own.
    """

    def __init__(self, declared: Declared, shared: bool = False) -> None:
        import subprocess
        from urllib.parse import urlsplit

        self._directory = None
        if shared:
            self.control = declared.at(LINE)
            if os.path.lexists(self.control):
                os.unlink(self.control)
        else:
            import tempfile

            self._directory = tempfile.TemporaryDirectory(prefix="git-")
            self.control = os.path.join(self._directory.name, "s")
        parts = urlsplit(declared.url)
        words = [*declared.ssh_words(self.control), "-M", "-N"]
        if parts.port is not None:
            words += ["-p", str(parts.port)]
        if parts.username is not None:
            words += ["-l", parts.username]
        null = subprocess.DEVNULL
        env = environment(declared)
        self._process = subprocess.Popen(
            [*words, "--", parts.hostname or ""], env=env, stdin=null, stdout=null, stderr=null, cwd="/"
        )

    def ready(self) -> str | None:
        """Wait for it; returns where it is, None where it came to nothing. ssh itself bounds how long that takes."""
        import time

        while not os.path.exists(self.control):
            if self._process.poll() is not None:
                return None
            time.sleep(LOOK_S)
        return self.control

    def close(self) -> None:
        """End it."""
        import subprocess

        self._process.terminate()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._directory is not None:
            self._directory.cleanup()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
