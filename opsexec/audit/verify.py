"""Checking the chain: every line's own hash, its place, and that nothing is missing between the segments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from opsexec.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    ROTATE,
    AuditEntry,
    Line,
    computed_hash,
    maintenance_step,
    parse,
)
from opsexec.audit.segment import Snapshot, snapshot
from opsexec.errors import AuditUnavailable

Why = Literal["torn", "bad_json", "hash", "seq", "prev", "missing", "head"]
_TRIES = 5


class Problem(msgspec.Struct, frozen=True):
    """The first place where the chain isn't whole: file, line (from 1), which check failed, and a sentence.

    torn: no newline at the end; bad_json: not an audit line; hash: changed after it was written; seq: a
    number is left out, repeated or out of order; prev: doesn't follow from the line before; missing: segments
    or last lines are gone; head: not the line that was once there.
    """

    file: Path
    line: int
    why: Why
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.detail}"


class SegmentReport(msgspec.Struct, frozen=True):
    """One file of the log: how many good lines it has, and the last of them (None when it has none)."""

    file: Path
    lines: int
    head: AuditEntry | None


class VerifyReport(msgspec.Struct, frozen=True):
    """What `verify` found; `problem` is None when the chain is whole from `first_seq` to `head`."""

    path: Path
    segments: tuple[SegmentReport, ...]
    first_seq: int
    head: AuditEntry | None
    rotations: int
    repairs: int
    problem: Problem | None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return self.problem is None

    @property
    def lines(self) -> int:
        """How many good lines were read, up to the first problem."""
        return sum(segment.lines for segment in self.segments)

    def __str__(self) -> str:
        if self.problem is not None:
            return str(self.problem)
        if self.head is None:
            return f"{self.path}: no lines yet"
        text = f"{self.path}: {self.lines} lines in {len(self.segments)} files, "
        text += f"head {self.head.seq} {self.head.hash}"
        if self.repairs:
            text += f"; torn tails put aside: {self.repairs}"
        if self.first_seq:
            text += f"; starts at line {self.first_seq}: older segments were removed, as the chain itself records"
        return text


class _Broken(Exception):
    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


class _Walk:
    """Takes the chain's lines one by one and raises _Broken at the first that doesn't belong."""

    def __init__(self, known: AuditEntry | None) -> None:
        self.known = known
        self.first_seq: int | None = None
        self.head: AuditEntry | None = None
        self.rotations = 0
        self.repairs = 0
        self.oldest_seq = 0

    def take(self, raw: bytes, at_end: bool, named_seq: int | None) -> None:
        """Check one line, newline included; `at_end`: nothing follows it in its file.

        `named_seq`: the sequence number that the file's name gives its first line; None for any other line.
        """
        if not raw.endswith(b"\n"):
            if at_end:
                raise _Broken("torn", "the last line is torn; the next opening of the log puts it aside")
            raise _Broken("bad_json", f"a line longer than {MAX_LINE_BYTES} bytes")
        raw = raw[:-1]
        line = parse(raw)
        if line is None:
            raise _Broken("bad_json", "not an audit line")
        if computed_hash(raw) != line.hash:
            raise _Broken("hash", "the line was changed after it was written: its hash is another")
        try:
            step = maintenance_step(raw)
        except ValueError as error:
            raise _Broken("bad_json", f"not a line that the log writes about itself: {error}") from error
        if named_seq is not None and line.seq != named_seq:
            raise _Broken("seq", f"expected line number {named_seq}, as the file's name says, got {line.seq}")
        self._check_place(line, begins_segment=step is not None and step["type"] == ROTATE)
        self.head = AuditEntry(line.seq, line.hash)
        if step is not None:
            if step["type"] == ROTATE:
                self.rotations += 1
                self.oldest_seq = max(self.oldest_seq, step["oldest_seq"])
            else:
                self.repairs += 1

    def _check_place(self, line: Line, begins_segment: bool) -> None:
        expected, prev = (0, GENESIS) if self.head is None else (self.head.seq + 1, self.head.hash)
        if self.first_seq is None:
            self.first_seq = line.seq
            if begins_segment and line.seq > 0:
                expected, prev = line.seq, line.prev
        if line.seq != expected:
            raise _Broken("seq", f"expected line number {expected}, got {line.seq}")
        if line.prev != prev:
            raise _Broken("prev", f"expected to follow {prev[:16]}..., follows {line.prev[:16]}...")
        if self.known is not None and line.seq == self.known.seq and line.hash != self.known.hash:
            raise _Broken("head", f"line number {line.seq} was once {self.known.hash[:16]}..., is {line.hash[:16]}...")


def verify(path: str | Path, *, head: AuditEntry | None = None) -> VerifyReport:
    """Check the whole log at `path`, closed segments first; memory stays bounded and writers go on meanwhile.

    A chain can't prove its own end: lines cut off the end leave a shorter chain that is whole. `head`, an
    entry kept elsewhere, closes that gap: it must be in the chain, unless retention has removed its segment.
    Raises AuditUnavailable when the log can't be read.
    """
    path = Path(path).absolute()
    for _ in range(_TRIES):
        taken = snapshot(path)
        try:
            return _verify(path, taken, head)
        except FileNotFoundError:
            continue  # a segment was removed by retention while we read: look again
        except OSError as error:
            raise AuditUnavailable(f"the audit log {path} can't be read: {error.strerror}") from error
        finally:
            os.close(taken.active)
    raise AuditUnavailable(
        f"the audit log {path} loses segments faster than they can be read", hint="keep more of them"
    )


def _verify(path: Path, taken: Snapshot, known: AuditEntry | None) -> VerifyReport:
    walk = _Walk(known)
    reports: list[SegmentReport] = []
    problem: Problem | None = None
    files = [*(file for _, file in taken.closed), path]
    names = [*(seq for seq, _ in taken.closed), None]
    for file, named_seq in zip(files, names, strict=True):
        number = 0
        before = walk.head
        with open(taken.active if file == path else file, "rb", closefd=file != path) as stream:
            size = taken.size if file == path else os.fstat(stream.fileno()).st_size
            for number, (raw, at_end) in enumerate(_lines(stream, size), 1):
                try:
                    walk.take(raw, at_end, named_seq if number == 1 else None)
                except _Broken as broken:
                    problem = Problem(file, number, broken.why, broken.detail)
                    number -= 1
                    break
        reports.append(SegmentReport(file, number, walk.head if walk.head != before else None))
        if problem is not None:
            break
    if problem is None:
        problem = _missing(walk, files, reports[-1].lines)
    return VerifyReport(path, tuple(reports), walk.first_seq or 0, walk.head, walk.rotations, walk.repairs, problem)


def _lines(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield (line, whether nothing follows it) of the first `size` bytes, overlong lines in pieces."""
    left = size
    while left and (raw := stream.readline(min(left, MAX_LINE_BYTES + 1))):
        left -= len(raw)
        yield raw, left == 0


def _missing(walk: _Walk, files: list[Path], lines_in_last: int) -> Problem | None:
    """Return what the chain says it should have and hasn't, once each line of it is good."""
    first = walk.first_seq or 0
    if first > walk.oldest_seq:
        detail = f"lines {walk.oldest_seq} to {first - 1} are missing, and no rotation says they were removed"
        return Problem(files[0], 1, "missing", detail)
    if lines_in_last == 0 and len(files) > 1:
        return Problem(files[-1], 1, "missing", "the active log is empty, but closed segments stand before it")
    if walk.known is not None and (walk.head is None or walk.head.seq < walk.known.seq):
        ends = "is empty" if walk.head is None else f"ends at line number {walk.head.seq}"
        detail = f"the chain {ends}, but line number {walk.known.seq} was written"
        return Problem(files[-1], lines_in_last + 1, "missing", detail)
    return None
