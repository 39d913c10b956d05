"""What a copy adds to the frames of a step: the words for the host's end, and which end that is."""

from __future__ import annotations

from typing import Literal

import msgspec

from opsexec.errors import ProtocolError
from opsexec.wire import TO_AGENT, frame

COPY = 0x05
TO_COPY = TO_AGENT | {COPY}

MODULES = {"rsync": "rsync_serve", "tar": "tar_serve"}
"""The far module of each method."""


class CopyWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a COPY frame holds. It follows the REQUEST frame of a Push or Pull; STDIN and OUT then carry the copy.

    `words`: the server options that the caller's rsync asks for; none for a tar stream. `tree`: the caller's source is
    a directory. Where the copy happens, and under which grants, is the agent's to say: nothing here names a path.
    """

    method: Literal["rsync", "tar"]
    words: tuple[bytes, ...] = ()
    tree: bool = False


_decoder = msgspec.msgpack.Decoder(CopyWords)


def encode_words(words: CopyWords) -> bytes:
    """Return a whole COPY frame."""
    return frame(COPY, msgspec.msgpack.encode(words))


def decode_words(data: bytes) -> CopyWords:
    """Decode a COPY frame; raises ProtocolError."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a copy's words: {error}", hint="see docs/agent.md") from error
