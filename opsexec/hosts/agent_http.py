"""The HTTP/1.1 answers of ops-agent, read strictly: anything it doesn't send is an error here.

Written for this one server because a step costs two of these and an all-round parser in Python more than the step does
(docs/decisions/0020); what is left out is refused, not skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import lru_cache
from types import MappingProxyType

from opsexec.errors import ProtocolError

MAX_HEAD = 16 << 10
_STATUS_LINE = b"HTTP/1.1 "


class _State(Enum):
    HEAD = auto()
    FIXED = auto()
    SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    LAST = auto()
    DONE = auto()


class AnswerParser:
    """Reads one answer. `on_head(status, headers)` once (names in lower case), `on_body(data)` for each piece.

    A piece may be a view of what was fed: nothing is copied here. `feed` raises ProtocolError, also for bytes after
    the end.
    """

    def __init__(
        self,
        on_head: Callable[[int, Mapping[str, str]], None],
        on_body: Callable[[bytes | memoryview], None],
    ) -> None:
        self._on_head = on_head
        self._on_body = on_body
        self._state = _State.HEAD
        self._line = b""
        self._left = 0
        self.keeps_alive = True

    @property
    def done(self) -> bool:
        """True once the whole answer is read."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        at, end = 0, len(data)
        while at < end:
            state = self._state
            if state is _State.CHUNK or state is _State.FIXED:
                size = min(self._left, end - at)
                piece = data if size == end else memoryview(data)[at : at + size]
                at += size
                self._left -= size
                if not self._left:
                    self._state = _State.CHUNK_END if state is _State.CHUNK else _State.DONE
                self._on_body(piece)
            elif state is _State.DONE:
                raise ProtocolError("bytes after the answer's end")
            elif state is _State.HEAD:
                at = end - len(self._feed_head(data[at:]))
            else:
                at = self._feed_line(data, at)

    def _feed_head(self, data: bytes) -> bytes:
        self._line += data
        head, end, rest = self._line.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            raise ProtocolError(f"an answer's head is over {MAX_HEAD} bytes")
        if not end:
            return b""
        self._line = b""
        self._begin(head)
        return rest

    def _begin(self, head: bytes) -> None:
        status, headers = _read_head(head)
        self._measure(headers)
        self.keeps_alive = headers.get("connection", "").lower() != "close"
        self._on_head(status, headers)

    def _measure(self, headers: Mapping[str, str]) -> None:
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if (length is None) == (coding is None):
            raise ProtocolError("an answer must have a length or be chunked, and not both")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ProtocolError("an answer's transfer coding is not chunked")
            self._state = _State.SIZE
            return
        assert length is not None
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise ProtocolError("an answer's length is not a number")
        self._left = int(length)
        self._state = _State.FIXED if self._left else _State.DONE

    def _feed_line(self, data: bytes, start: int) -> int:
        """Take up to the next line end: a chunk's size, the empty line after a chunk, the one at the very end.

        Returns where in `data` that is.
        """
        found = data.find(b"\n", start) + 1
        end = found or len(data)
        if len(self._line) + end - start > 32:
            raise ProtocolError("a chunk's size is malformed")
        self._line += data[start:end]
        if not found:
            return end
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise ProtocolError("a line of an answer ends without CR")
        self._take_line(line[:-2])
        return end

    def _take_line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            if not line or len(line) > 8 or line.strip(b"0123456789abcdefABCDEF"):
                raise ProtocolError("a chunk's size is malformed")
            self._left = int(line, 16)
            self._state = _State.CHUNK if self._left else _State.LAST
        elif line:
            raise ProtocolError("bytes where a chunk ought to end")
        else:
            self._state = _State.SIZE if self._state is _State.CHUNK_END else _State.DONE


@lru_cache(64)
def _read_head(head: bytes) -> tuple[int, Mapping[str, str]]:
    """Return an answer's status and headers. Most answers of an agent have one of a few heads."""
    first, *lines = head.split(b"\r\n")
    code = first[len(_STATUS_LINE) : len(_STATUS_LINE) + 3]
    if not first.startswith(_STATUS_LINE) or not code.isdigit() or first[12:13] not in (b" ", b""):
        raise ProtocolError("the other side doesn't speak HTTP/1.1", hint="is this ops-agent's socket?")
    status = int(code)
    if status < 200:
        raise ProtocolError(f"an interim answer ({status}) that nobody asked for")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or name != name.strip() or not name:
            raise ProtocolError("a malformed header in an answer")
        if name.lower() in headers:
            raise ProtocolError(f"the header {name[:40]} stands twice in an answer")
        headers[name.lower()] = value.strip()
    return status, MappingProxyType(headers)


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a request's body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
