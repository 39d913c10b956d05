"""Reading the tar stream: each 512-byte header is read by itself, so nothing the other side writes grows in memory."""

from __future__ import annotations

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsexec.far.copy_pipe import Pipe

BLOCK = 512
MAX_REASON = 16384


def members(pipe: Pipe) -> Iterator[tuple[int, str, int]]:
    """Yield (place in the list, sign, size) of each member; its content stays in the pipe. Raises FarError.

    Only plain members are taken: no links, devices, directories, nor extension headers that would change a member's
    name or size.
    """
    from tarfile import AREGTYPE, REGTYPE, HeaderError, TarInfo

    while True:
        block = pipe.read(BLOCK)
        if not block.strip(b"\0"):
            if pipe.read(BLOCK).strip(b"\0"):
                raise FarError("protocol", "the tar stream goes on after its end")
            return
        try:
            info = TarInfo.frombuf(block, "ascii", "strict")
        except (HeaderError, UnicodeDecodeError) as error:
            raise FarError("protocol", f"the tar stream has a malformed header: {error}") from None
        sign = info.name[-1:] if info.name[-1:] in ("!", "~") else ""
        digits = info.name[: len(info.name) - len(sign)]
        if info.type not in (REGTYPE, AREGTYPE) or not (digits.isdigit() and len(digits) < 10) or info.size < 0:
            raise FarError("protocol", "the tar stream has a member that was not asked for")
        if sign and info.size > MAX_REASON:
            raise FarError("protocol", "the tar stream has a reason over the limit")
        yield int(digits), sign, info.size
