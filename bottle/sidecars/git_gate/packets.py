"""git's packet lines: the commands at the head of a push, read within bounds, and answers a client prints.

The format is that of git's own documents, gitprotocol-common(5) and gitprotocol-pack(5).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bottle.sidecars.git_gate.repository import Refusal

FLUSH = b"0000"
MAX_PACKET = 65520
MAX_HEAD = 1 << 20
_COMMAND = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) (refs/[^\0\n]{1,1000})\Z")
_NO_REF = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|\.lock(?:/|\Z)|/\.|\.\Z|/\Z|/-")

KNOWN = frozenset(
    b"report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta agent object-format "
    b"session-id".split()
)
"""What a client may ask for; push options and signed pushes aren't, as nothing here looks into them."""


@dataclass(frozen=True)
class PushHead:
    """The commands of a push. `raw`: as they came; `features`: what the client asked for; `refs`: those it names.

    `updates`: the commands as a step takes them, `OLD NEW REF`; empty where a name is no UTF-8.
    """

    raw: bytes
    features: frozenset[bytes]
    refs: tuple[bytes, ...]
    updates: tuple[str, ...] = ()


def packet(data: bytes) -> bytes:
    """Return a packet line."""
    return b"%04x" % (len(data) + 4) + data


class Body:
    """Reads exact counts from a stream that comes in blocks; `read` returns b"" at its end."""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read
        self._held = b""

    async def exactly(self, count: int) -> bytes:
        """Return so many bytes; raises Refusal where the stream ends before."""
        while len(self._held) < count:
            block = await self._read()
            if not block:
                raise Refusal("the request ends in the middle of its commands")
            self._held += block
        data, self._held = self._held[:count], self._held[count:]
        return data

    async def first(self, count: int) -> bytes:
        """Return as many bytes without taking them, fewer where the stream ends before."""
        while len(self._held) < count:
            block = await self._read()
            if not block:
                break
            self._held += block
        return self._held[:count]

    async def some(self) -> bytes:
        """Return what comes next, b"" at the end."""
        data, self._held = self._held, b""
        return data or await self._read()


class UnfitPush(Refusal):
    """A push that isn't taken, with what is known of it: how to tell its client depends on what that asked for."""

    def __init__(self, why: str, head: PushHead) -> None:
        super().__init__(why)
        self.head = head


async def read_head(body: Body, most: int) -> PushHead:
    """Read the commands of a push up to their flush; raises Refusal for what isn't one, or is over `most` of them.

    What a client asked for stands behind what may be refused, so it is read on before that is told.
    """
    raw = bytearray()
    features: frozenset[bytes] | None = None
    refs: list[bytes] = []
    commands: list[bytes] = []
    why: str | None = None
    while (size := await body.exactly(4)) != FLUSH:
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", size) or not 4 < int(size, 16) <= MAX_PACKET:
            why = why or "the request is no push"
            break
        data = await body.exactly(int(size, 16) - 4)
        raw += size + data
        line, nul, asked = data.rstrip(b"\n").partition(b"\0")
        if nul and features is None:
            features = frozenset(asked.split())
            why = why or _unknown(features)
        elif nul:
            why = why or "the request is no push"
        found = _COMMAND.match(line)
        if found is not None and not _NO_REF.search(found[3]):
            refs.append(found[3])
            commands.append(line)
        else:
            why = why or _no_command(line)
        if len(refs) > most or len(raw) > MAX_HEAD:
            why = why or f"a push may update {most} refs at most"
            break
    head = PushHead(bytes(raw) + FLUSH, features or frozenset(), tuple(refs), _as_texts(commands))
    if why is not None:
        raise UnfitPush(why, head)
    return head


def _no_command(line: bytes) -> str:
    if line.startswith(b"push-cert"):
        return "signed pushes aren't taken here"
    if line.startswith(b"shallow "):
        return "a push from a shallow clone isn't taken here; fetch the whole history first (--unshallow)"
    return "the push holds a command that isn't one, or a ref name git doesn't allow"


def _as_texts(commands: list[bytes]) -> tuple[str, ...]:
    try:
        return tuple(command.decode("utf-8") for command in commands)
    except UnicodeDecodeError:
        return ()


def _unknown(features: frozenset[bytes]) -> str | None:
    """Return why a client can't have what it asks for, None where it can."""
    for each in features:
        if each.partition(b"=")[0] not in KNOWN:
            if each == b"push-options":
                return "push options aren't taken here"
            return "the client asks for a feature the gate doesn't have"
        if each.startswith(b"object-format=") and each != b"object-format=sha1":
            return "only sha1 repositories pass here"
    return None


def refused_push(head: PushHead | None, text: bytes) -> bytes:
    """Return the whole answer to a push that isn't taken: `text` for the person, and each ref refused."""
    if head is None or b"side-band-64k" not in head.features:
        return packet(b"ERR " + text.strip())
    report = b"unpack ok\n"
    rows = b"".join(packet(b"ng " + ref + b" refused by the git gate\n") for ref in head.refs)
    inner = packet(report) + rows + FLUSH
    parts = [packet(b"\x02" + line + b"\n") for line in text.splitlines()]
    parts += [packet(b"\x01" + inner[at : at + 60000]) for at in range(0, len(inner), 60000)]
    return b"".join(parts) + FLUSH


def refused_service(service: str, text: str) -> bytes:
    """Return the answer to `info/refs` that makes a client print `text`."""
    return packet(f"# service={service}\n".encode()) + FLUSH + packet(b"ERR " + text.encode()[:4000])
