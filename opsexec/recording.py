"""Terminal recordings in asciicast v3: one JSON header line, then one JSON array an event.

Format: https://docs.asciinema.org/manual/asciicast/v3/. An event is [seconds since the one before, code, text]; the
codes written here are "o" (output), "r" (resize, "80x24") and "x" (exit status), and "i" (keys) where someone asked for
it: they may hold passwords. Text is valid UTF-8: bytes that aren't are recorded as U+FFFD.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from opsexec.errors import RecordingFailed, UsageError

MAX_LINE_BYTES = 16 << 20
MAX_SIDE = 9999
"""The most columns or rows that a terminal has here, and a recording may say."""


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
        self._encoder = msgspec.json.Encoder()
        self._line = bytearray()
        self.empty = True
        """Whether nothing has happened yet that was to be recorded."""
        self._typed = codecs.getincrementaldecoder("utf-8")("replace")

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
        tags: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Make the file (0600) and write its header; size in characters, at most MAX_SIDE of a side is recorded.

        Raises UsageError when it exists.
        """
        path = Path(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise UsageError(f"the recording {path} exists", hint="name another file, or remove it") from error
        except OSError as error:
            raise UsageError(
                f"the recording {path} can't be made: {error.strerror}", hint="name another file"
            ) from error
        recording = cls(path, fd, clock)
        header: dict[str, Any] = {
            "version": 3,
            "term": {"cols": _side(columns), "rows": _side(rows), "type": term},
            "timestamp": int(time.time()),
            "title": title,
            "command": command,
        }
        if tags:
            header["tags"] = list(tags)
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
        try:
            recording._put(text.encode("utf-8", "replace") + b"\n")
        except RecordingFailed:
            recording.discard()
            raise
        return recording

    def output(self, data: bytes) -> None:
        """Record a block of output; a character that is cut at its end is kept for the next. Raises RecordingFailed."""
        text = self._decoder.decode(data)
        if text:
            self._event("o", text)

    def typed(self, data: bytes) -> None:
        """Record keys; raises RecordingFailed."""
        text = self._typed.decode(data)
        if text:
            self._event("i", text)

    def resized(self, columns: int, rows: int) -> None:
        """Record a new size, in characters, at most MAX_SIDE of a side; raises RecordingFailed."""
        self._event("r", f"{_side(columns)}x{_side(rows)}")

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

    def discard(self) -> None:
        """Close the file and remove it: there was nothing to record. Another that stands in its place stays."""
        with suppress(OSError):  # it is gone, or can't be removed: an empty recording is no reason to fail
            if self._fd >= 0 and os.path.samestat(os.fstat(self._fd), os.lstat(self._path)):
                os.unlink(self._path)
        self.close()

    def _event(self, code: str, text: str) -> None:
        interval = max(0.0, round(self._clock() - self._last, 6))
        self._last += interval
        self._encoder.encode_into((interval, code, text), self._line)
        self._line += b"\n"
        self._put(self._line)
        self.empty = False

    def _put(self, line: bytes | bytearray) -> None:
        """Append a line, whole; raises RecordingFailed."""
        try:
            if os.write(self._fd, line) == len(line):
                return
            reason = "no room"
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        raise self._failed(reason)

    def _failed(self, reason: str) -> RecordingFailed:
        return RecordingFailed(
            f"the recording {self._path} can't be written: {reason}", hint="make room, or record elsewhere"
        )


def _side(characters: int) -> int:
    """Return what the reader takes for a side: a recording that can't be read back is none."""
    return max(1, min(characters, MAX_SIDE))


class Header(NamedTuple):
    """What a recording says of itself; size in characters, `timestamp`: when it began, in seconds since 1970."""

    columns: int
    rows: int
    title: str
    tags: tuple[str, ...] = ()
    timestamp: float | None = None


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
    header = None if first is None else parse_header(first[1])
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


def parse_header(raw: bytes) -> Header | None:
    """Return what the first line of a recording says; None where it is none."""
    value = _json(raw)
    term = value.get("term") if isinstance(value, dict) and value.get("version") == 3 else None
    if not isinstance(term, dict):
        return None
    columns, rows = term.get("cols"), term.get("rows")
    if not (isinstance(columns, int) and 0 < columns <= MAX_SIDE and isinstance(rows, int) and 0 < rows <= MAX_SIDE):
        return None
    tags, begun = value.get("tags"), value.get("timestamp")
    if isinstance(begun, int | float) and not -(10**11) < begun < 10**11:
        return None
    return Header(
        columns,
        rows,
        str(value.get("title") or ""),
        tuple(map(str, tags)) if isinstance(tags, list) else (),
        float(begun) if isinstance(begun, int | float) else None,
    )


def _events(path: str | Path, lines: Iterator[tuple[int, bytes]]) -> Iterator[Event]:
    for number, raw in lines:
        event = parse_event(raw)
        if event is not None:
            yield event
        elif raw.endswith(b"\n") or len(raw) >= MAX_LINE_BYTES or _json(raw) is not None:
            raise BadRecording(f"{path}:{number}: not an event", hint="the recording was damaged or edited")
        else:
            return


def parse_event(raw: bytes) -> Event | None:
    """Return the event of a line; None for what is none: also a size, a status or text that can't be one."""
    match _json(raw):
        case [int() | float() as interval, str() as code, str() as text] if 0 <= interval < 10**9:
            wanted = _SHAPES.get(code)
            if (wanted is None or wanted.fullmatch(text)) and _is_text(text):
                return Event(float(interval), code, text)
    return None


_SHAPES = {"r": re.compile(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", re.ASCII), "x": re.compile(r"-?[0-9]{1,10}", re.ASCII)}


def _is_text(text: str) -> bool:
    """True unless there is half a character in it, which JSON can spell and no terminal can be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(raw: bytes) -> Any:
    """Return the JSON value of a line, None for what is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
