"""gitleaks beside our own rules: it gets everything as one nameless stream, under our configuration and no other."""

from __future__ import annotations

import os

from opsexec.far.git_run import Declared, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queue import Queue

FOUND = 77
"""Its exit status where it found something."""

CHUNK = 1 << 20
WAITING_CHUNKS = 64


class Gitleaks:
    """One run of it. Started at once, because most of its time is its own start; fed while we look ourselves."""

    def __init__(self, declared: Declared, program: str) -> None:
        import queue
        import subprocess
        import tempfile
        import threading

        self._labels = []  # type: list[tuple[int, str]]
        self._line = 1
        self._report = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in findings()
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
        words += ["--config", declared.at("gitleaks.toml"), "--gitleaks-ignore-path", "/nonexistent"]
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GOMEMLIMIT": "1GiB"}
        marker = os.environ.get("OPSEXEC_RUN")
        if marker is not None:
            env["OPSEXEC_RUN"] = marker
        try:
            self._process = subprocess.Popen(
                [program, *words],
                env=env,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=self._report,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise Refused(f"the secret scanner gitleaks can't be started: {error.strerror}") from error
        self._queue: Queue[bytes | None] = queue.Queue(WAITING_CHUNKS)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        broken = False
        while True:
            chunk = self._queue.get()
            if chunk is None:
                break
            try:
                if not broken:
                    self._process.stdin.write(chunk)
            except OSError:
                broken = True  # it has ended: its status says how
        try:
            self._process.stdin.close()
        except OSError:
            broken = True

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
        status = self._process.wait()
        with self._report as report:
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
