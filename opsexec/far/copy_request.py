"""What a copy asks of the host's end, how it is answered, and where it happens."""

from __future__ import annotations

import os
from struct import unpack

from opsexec.far.match import path_matches
from opsexec.far.message import FarError, as_bytes, pack_layers, pack_message, unpack_layers, unpack_message
from opsexec.far.walk import decode, encode, located

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from opsexec.far.walk import Place

PUSH = "sync.push"
PULL = "sync.pull"
MAX_REQUEST = 1 << 24


class CopyRequest:
    """One copy, as it crosses to the host.

    `path`: on the host; a trailing slash means what is in the directory. `layers`: the grants of `verb`. `tree`: the
    source is a directory, as far as the caller can tell. `rate`: bytes a second, 0 = as fast as it goes. `words`:
    rsync's server options, or exclude patterns.
    """

    __slots__ = ("check", "delete", "layers", "path", "rate", "run", "tree", "verb", "words")

    def __init__(
        self,
        run: str,
        verb: str,
        path: str,
        layers: Sequence[Sequence[str]],
        words: Sequence[bytes],
        *,
        check: bool = False,
        delete: bool = False,
        tree: bool = False,
        rate: int = 0,
    ) -> None:
        self.run = run
        self.verb = verb
        self.path = path
        self.layers = layers
        self.words = words
        self.check = check
        self.delete = delete
        self.tree = tree
        self.rate = rate

    def pack(self) -> bytes:
        """Return the wire form, its length first."""
        flags = (b"c" if self.check else b"") + (b"d" if self.delete else b"") + (b"t" if self.tree else b"")
        data = pack_message(
            [
                self.run.encode(),
                self.verb.encode(),
                encode(self.path),
                pack_layers(self.layers),
                flags,
                b"%d" % self.rate,
                *self.words,
            ]
        )
        return len(data).to_bytes(4, "big") + data

    @classmethod
    def parse(cls, data: bytes) -> CopyRequest:
        """Return the request a wire form (without its length) holds; raises ValueError for anything else."""
        run, verb, path, grants, flags, rate, *words = unpack_message(data)
        return cls(
            run.decode(),
            verb.decode(),
            decode(path),
            unpack_layers(grants),
            words,
            check=b"c" in flags,
            delete=b"d" in flags,
            tree=b"t" in flags,
            rate=int(rate),
        )

    @property
    def pushing(self) -> bool:
        """True when the host receives."""
        return self.verb == PUSH

    @property
    def inside(self) -> bool:
        """True when the path stands for what is in that directory."""
        return self.path.endswith("/")

    def located(self) -> AbstractContextManager[Place]:
        """Return the place under the grants, held open for a block. Raises FarError, OSError."""
        return located(self.path.rstrip("/") or "/", self.layers, self.verb, follow=self.pushing or self.inside)


def admits_below(layers: Sequence[Sequence[str]], path: str) -> bool:
    """True when, in every layer, one pattern admits this path and all that may ever stand below it."""
    return bool(layers) and all(
        any(pattern.endswith("/**") and path_matches(pattern, path) for pattern in layer) for layer in layers
    )


def serve(nonce: str, work: Callable[[CopyRequest], None]) -> None:
    """Greet, read one request and do it in a child that ends when the caller is gone. Never returns."""
    from opsexec.far.attend import attend

    write_whole(1, nonce.encode())
    (size,) = unpack(">I", _read(4))
    if size > MAX_REQUEST:
        os._exit(1)
    request = CopyRequest.parse(_read(size))
    attend(request.run, lambda: work(request))


def answer_ok(*details: bytes) -> None:
    """Say that the copy is granted and may begin."""
    _answer([b"ok", *details])


def answer_failed(error: FarError | OSError, path: str) -> None:
    """Say why it can't begin; `path` is the place to copy to or from."""
    if isinstance(error, OSError):
        from opsexec.far.faults import fault

        error = fault(error, f"reach {path}")
    _answer([b"failed", *(as_bytes(text) for text in (error.code, error.text, *error.details))])


def _answer(items: list[bytes]) -> None:
    data = pack_message(items)
    write_whole(1, len(data).to_bytes(4, "big") + data)


def write_whole(fd: int, data: bytes) -> None:
    """Write all of it to a blocking file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = os.read(0, size - len(data))
        if not block:
            os._exit(0)
        data += block
    return data
