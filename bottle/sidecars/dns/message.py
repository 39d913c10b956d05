"""DNS messages as far as one question and its answer need: RFC 1035, sections 4.1 and 4.2. Pure."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = struct.Struct("!HHHHHH")
MAX_NAME = 255
MAX_LABEL = 63

NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 3, 4, 5
A, AAAA, IXFR, AXFR, MAILB, MAILA, ANY = 1, 28, 251, 252, 253, 254, 255
KINDS = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS"}
KINDS |= {IXFR: "IXFR", AXFR: "AXFR", MAILB: "MAILB", MAILA: "MAILA", ANY: "ANY"}
IN = 1
TTL_S = 60

_FINE = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_RESPONSE, _OPCODE, _AUTHORITATIVE, _RECURSION_WANTED = 0x8000, 0x7800, 0x0400, 0x0100


@dataclass(frozen=True)
class Query:
    """A question. `labels`: in lower case; `raw`: its section as it was asked, for an answer to repeat."""

    number: int
    flags: int
    labels: tuple[bytes, ...]
    kind: int
    group: int
    raw: bytes

    @property
    def name(self) -> str:
        """The name as text that no line and no terminal obeys; other bytes as \\DDD."""
        return ".".join(_plain(label) for label in self.labels) or "."

    @property
    def kind_name(self) -> str:
        """The kind of record asked for."""
        return KINDS.get(self.kind, f"TYPE{self.kind}")


class NotAQuery(Exception):
    """What came is no single question. `answer`: what to say to it, None for nothing at all."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__("no DNS query")
        self.answer = answer


def read_query(data: bytes) -> Query:
    """Return the question in a message; raises NotAQuery. What stands behind the question (EDNS) is left alone."""
    if len(data) < HEADER.size:
        raise NotAQuery(None)
    number, flags, questions, answers, _, _ = HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise NotAQuery(None)  # an answer to an answer is how two of them never stop
    if flags & _OPCODE:
        raise NotAQuery(_head(number, flags, NOTIMP))
    if questions != 1 or answers:
        raise NotAQuery(_head(number, flags, FORMERR))
    labels = []
    at = HEADER.size
    while True:
        size = data[at] if at < len(data) else MAX_LABEL + 1
        if size > MAX_LABEL or at + 1 + size > len(data) or at - HEADER.size > MAX_NAME:
            raise NotAQuery(_head(number, flags, FORMERR))  # too long, cut short, or a pointer, which has no place here
        at += 1
        if size == 0:
            break
        labels.append(data[at : at + size].lower())
        at += size
    if len(data) < at + 4 or at - HEADER.size > MAX_NAME:
        raise NotAQuery(_head(number, flags, FORMERR))
    kind, group = struct.unpack_from("!HH", data, at)
    return Query(number, flags, tuple(labels), kind, group, data[HEADER.size : at + 4])


def answer(query: Query, code: int, addresses: Sequence[str] = ()) -> bytes:
    """Return the answer to a question: a code, and one record for each address. Never longer than 16 bytes a record."""
    records = []
    for address in addresses:
        packed = ipaddress.ip_address(address).packed
        kind = A if len(packed) == 4 else AAAA
        if kind == query.kind:
            records.append(struct.pack("!HHHIH", 0xC000 | HEADER.size, kind, IN, TTL_S, len(packed)) + packed)
    flags = _RESPONSE | _AUTHORITATIVE | (query.flags & _RECURSION_WANTED) | code
    return HEADER.pack(query.number, flags, 1, len(records), 0, 0) + query.raw + b"".join(records)


def _head(number: int, flags: int, code: int) -> bytes:
    return HEADER.pack(number, _RESPONSE | (flags & (_OPCODE | _RECURSION_WANTED)) | code, 0, 0, 0, 0)


def _plain(label: bytes) -> str:
    return "".join(chr(byte) if byte in _FINE else f"\\{byte:03d}" for byte in label)
