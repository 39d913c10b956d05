"""gitleaks beside our own rules: it gets everything as one nameless stream, under our configuration and no other."""

from __future__ import annotations

import os

from opsexec.far.git_run import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queue import Queue

FOUND = 77
"""Its exit status where it found something."""

CHUNK = 1 << 20
WAITING_CHUNKS = 64


class Gitleaks:
    """One run of it. Started at once, because most of its time is its own start; fed while we look ourselves."""

    def __init__(self, place: str, program: str) -> None:
        self._labels = []  # type: list[tuple[int, str]]
        self._line = 1
        words = [
            "stdin",
            "--no-banner",
            "--no-color",
            "--log-level",
            "fatal",
            "--redact=100",
            "--report-format",
            "json",
        ]
        words += ["--report-path", "-", "--exit-code", str(FOUND), "--ignore-gitleaks-allow", "--max-decode-depth", "0"]
        words += ["--config", os.path.join(place, "gitleaks.toml"), "--gitleaks-ignore-path", "/nonexistent"]
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GOMEMLIMIT": "1GiB"}
        marker = os.environ.get("OPSEXEC_RUN")
        if marker is not None:
            env["OPSEXEC_RUN"] = marker
        self._report = _nameless_file()
        reading, self._into = os.pipe()
        try:
            self._pid = _spawn([program, *words], env, reading, self._report)
        except OSError as error:
            raise Refused(f"the secret scanner gitleaks can't be started: {error.strerror}") from error
        finally:
            os.close(reading)
        # It is on its way: what else is needed is imported beside it.
        import queue
        import threading

        self._queue: Queue[bytes | None] = queue.Queue(WAITING_CHUNKS)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def _feed(self) -> None:
        broken = False
        with open(self._into, "wb", buffering=0) as into:
            while True:
                chunk = self._queue.get()
                if chunk is None:
                    break
                try:
                    while chunk and not broken:
                        chunk = chunk[into.write(chunk) or 0 :]
                except OSError:
                    broken = True  # it has ended: its status says how

    def add(self, label: str, text: bytes) -> None:
        """Give it one more text; `label` is how its findings there are told."""
        self._labels.append((self._line, label))
        text = text.replace(b"\r", b"\n").replace(b"\0", b"\n") + b"\n\n"
        self._line += text.count(b"\n")
        for at in range(0, len(text), CHUNK):
            self._queue.put(text[at : at + CHUNK])

    def findings(self) -> list[tuple[str, str]]:
        """Wait for it; returns (label, rule). Raises Refused where it didn't come to an answer."""
        import bisect
        import json

        self._queue.put(None)
        self._feeder.join()
        status = _status(os.waitpid(self._pid, 0)[1])
        with open(self._report, "rb") as report:
            report.seek(0)
            text = report.read()
        if status not in (0, FOUND):
            raise Refused(f"the secret scanner gitleaks failed (status {status}), so nothing was accepted")
        starts = [line for line, _ in self._labels]
        found = []
        for each in json.loads(text or b"[]"):
            at = bisect.bisect_right(starts, int(each["StartLine"])) - 1
            found.append((self._labels[max(at, 0)][1], str(each["RuleID"])))
        if status == FOUND and not found:
            raise Refused("the secret scanner gitleaks found something and didn't say what")
        return found


def _spawn(argv: list[str], env: dict[str, str], stdin: int, stdout: int) -> int:
    """Start a program and return its process id; a part of what `subprocess` does, without the time to import it."""
    import signal

    os.chdir("/")
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, null))]
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsigdef=[signal.SIGPIPE])
    finally:
        os.close(null)


def _status(status: int) -> int:
    """Return a wait status as a shell would: negative for a signal. (os.waitstatus_to_exitcode is Python 3.9.)"""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("report")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
