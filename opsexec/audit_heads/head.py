"""One signed head: which line a chain ended in when, and the host key's signature over saying so.

The file has one JSON object a line: `statement`, the text that was signed, and `signature`, in the armour of
`ssh-keygen -Y sign` (namespace opsexec-audit). Each statement holds the sha256 of the line before it, so that the last
signature covers all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from opsexec.audit import AuditEntry
from opsexec.audit.record import GENESIS
from opsexec.errors import AuditUnavailable

NAMESPACE = "opsexec-audit"
FORMAT = 1
MAX_LINE_BYTES = 16 << 10


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. `number`: how many heads came before; `before`: sha256 of the line before, or zeros."""

    format: int
    host: str
    seq: int
    hash: str
    ts: str
    number: int
    before: str


class SignedHead(msgspec.Struct, frozen=True):
    """A line of the file. `digest`: sha256 of it, which the next one holds."""

    statement: str
    signature: str
    said: Statement
    digest: str

    @property
    def entry(self) -> AuditEntry:
        """The audit line it vouches for."""
        return AuditEntry(self.said.seq, self.said.hash)


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statement: str
    signature: str


def heads_path(log: Path) -> Path:
    """Return where the signed heads of a log are."""
    return log.with_name(log.name + ".heads")


def older_path(log: Path) -> Path:
    """Return where the heads before those are, once the file was full."""
    return log.with_name(log.name + ".heads.old")


def statement_after(last: SignedHead | None, host: str, entry: AuditEntry, ts: str) -> str:
    """Return the text to sign for a chain's end."""
    said = {
        "format": FORMAT,
        "host": host,
        "seq": entry.seq,
        "hash": entry.hash,
        "ts": ts,
        "number": 0 if last is None else last.said.number + 1,
        "before": GENESIS if last is None else last.digest,
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def as_line(statement: str, signature: str) -> bytes:
    """Return the line of a signed statement, its newline included."""
    return json.dumps({"signature": signature, "statement": statement}, sort_keys=True).encode() + b"\n"


def parse_line(raw: bytes) -> SignedHead | None:
    """Return the head that a line, without its newline, holds; None when it is none."""
    try:
        line = msgspec.json.decode(raw, type=_Line)
        said = msgspec.json.decode(line.statement, type=Statement)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if said.format != FORMAT:
        return None
    return SignedHead(line.statement, line.signature, said, hashlib.sha256(raw).hexdigest())


def read_heads(log: Path) -> Iterator[tuple[Path, int, SignedHead | None]]:
    """Yield (file, line, head) of each whole line, the oldest first; None for a line that is no head.

    A last line without its newline was being written: it is passed over. Raises AuditUnavailable.
    """
    for file in (older_path(log), heads_path(log)):
        try:
            with file.open("rb") as stream:
                number = 0
                while raw := stream.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if raw.endswith(b"\n"):
                        yield file, number, parse_line(raw[:-1])
                    elif len(raw) > MAX_LINE_BYTES:
                        yield file, number, None
                        break
        except FileNotFoundError:
            continue
        except OSError as error:
            raise AuditUnavailable(f"the signed heads {file} can't be read: {error.strerror}") from error


def last_head(log: Path) -> SignedHead | None:
    """Return the newest head that can be read; raises AuditUnavailable."""
    last: SignedHead | None = None
    for _, _, head in read_heads(log):
        last = head or last
    return last
