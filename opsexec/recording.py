"""Terminal recordings in asciicast v3: one JSON header line, then one JSON array an event.

Format: https://docs.asciinema.org/manual/asciicast/v3/. An event is [seconds since the one before, code, text]; the
codes written here are "o" (output), "r" (resize, "80x24") and "x" (exit status). Text is valid UTF-8: bytes that
aren't are recorded as U+FFFD. Input is never recorded: it may hold passwords.
"""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from opsexec.errors import OpsError, UsageError

MAX_LINE_BYTES = 16 << 20


class RecordingFailed(OpsError):
    """A recording that can't be written: what can't be recorded isn't gone on with."""

    code = "recording"
    exit_code = 3


class BadRecording(UsageError):
    """A file that is no asciicast v3 recording; the message starts with file:line."""

    code = "bad_recording"


class Recording:
    """Writes a recording; each event is one write(2), so that a crash tears its last line at most."""

    def __init__(self, path: Path, fd: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._fd = fd
        self._clock = clock
        self._last = clock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        columns: int,
        rows: int,
        term: str,
        title: str,
        command: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> Recording:
        """Make the file (0600) and write its header; size in characters. Raises UsageError when it exists."""
        path = Path(path)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise UsageError(f"the recording {path} exists", hint="name another file, or remove it") from error
        except OSError as error:
            raise UsageError(
                f"the recording {path} can't be made: {error.strerror}", hint="name another file"
            ) from error
        recording = cls(path, fd, clock)
        recording._write(
            {
                "version": 3,
                "term": {"cols": columns, "rows": rows, "type": term},
                "timestamp": int(time.time()),
                "title": title,
                "command": command,
            }
        )
        return recording

    def output(self, data: bytes) -> None:
        """Record a block of output; a character that is cut at its end is kept for the next. Raises RecordingFailed."""
        text = self._decoder.decode(data)
        if text:
            self._event("o", text)

    def resized(self, columns: int, rows: int) -> None:
        """Record a new size, in characters; raises RecordingFailed."""
        self._event("r", f"{columns}x{rows}")

    def ended(self, status: int) -> None:
        """Record the program's end: its exit code, or 128 + its signal's number. Raises RecordingFailed."""
        rest = self._decoder.decode(b"", final=True)
        if rest:
            self._event("o", rest)
        self._event("x", str(status))

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _event(self, code: str, text: str) -> None:
        interval = max(0.0, round(self._clock() - self._last, 6))
        self._last += interval
        self._write([interval, code, text])

    def _write(self, value: Any) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        try:
            if os.write(self._fd, line) == len(line):
                return
            reason = "no room"
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        raise RecordingFailed(
            f"the recording {self._path} can't be written: {reason}", hint="make room, or record elsewhere"
        )


class Header(NamedTuple):
    """What a recording says of itself; size in characters."""

    columns: int
    rows: int
    title: str


class Event(NamedTuple):
    """One event: seconds since the one before, its code, its text."""

    interval_s: float
    code: str
    text: str


def read_recording(path: str | Path) -> tuple[Header, Iterator[Event]]:
    """Return the header, and the events as they are read; raises BadRecording with file:line.

    A last line that a crash has torn ends the events.
    """
    lines = _lines(Path(path))
    first = next(lines, None)
    header = None if first is None else _header(first[1])
    if header is None:
        raise BadRecording(f"{path}:1: no asciicast v3 recording begins here", hint="`opsexec tty --record` makes one")
    return header, _events(path, lines)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line with its newline) of each line that is no comment."""
    try:
        with path.open("rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE_BYTES):
                number += 1
                if not raw.startswith(b"#"):
                    yield number, raw
    except OSError as error:
        raise BadRecording(f"{path}: can't be read ({error.strerror})", hint="name a recording") from error


def _header(raw: bytes) -> Header | None:
    value = _json(raw)
    term = value.get("term") if isinstance(value, dict) and value.get("version") == 3 else None
    if not isinstance(term, dict):
        return None
    columns, rows = term.get("cols"), term.get("rows")
    if not isinstance(columns, int) or not isinstance(rows, int):
        return None
    return Header(columns, rows, str(value.get("title") or ""))


def _events(path: str | Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[Event]:
    for number, raw in lines:
        value = _json(raw)
        match value:
            case [int() | float() as interval, str() as code, str() as text] if 0 <= interval < 10**9:
                yield Event(float(interval), code, text)
            case None if not raw.endswith(b"\n"):
                return
            case _:
                raise BadRecording(f"{path}:{number}: not an event", hint="the recording was damaged or edited")


def _json(raw: bytes) -> Any:
    """Return the JSON value of a line, None for what is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
