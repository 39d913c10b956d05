"""What bytes may stand for: the views of a text once one layer of writing, escaping or encoding is taken off it.

A view holds what was decoded and reads as text; noise, which most text gives when decoded for nothing, is dropped.
"""

from __future__ import annotations

import binascii
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PRINTABLE = re.compile(rb"[\x20-\x7e\t\r\n]{10,}")
"""What is kept of a decoded run: shorter stretches are noise, and shorter than any credential."""

_THREES = re.compile(rb"3+")

_BASE64 = re.compile(
    rb"[0-9A-Za-z+/_-]{14,}(?:(?:\\n|\\r|[\s\"',#*>;|])+[0-9A-Za-z+/_-]{14,})*(?:[\s\"',#*>;|]*[0-9A-Za-z+/_-]{1,14}=)?"
)
_NOT_BASE64 = re.compile(rb"\\[nr]|[^0-9A-Za-z+/]+")
_BASE32 = (
    re.compile(rb"[A-Z2-7]{16,}(?:\s+[A-Z2-7]{8,})*"),
    re.compile(rb"[a-z2-7]{16,}(?:\s+[a-z2-7]{8,})*"),
)
_HEX_REGION = re.compile(rb"[0-9A-Fa-f\sx\\%:,;.-]{20,}")
_NUMBER_REGION = re.compile(rb"[\d\s,]{23,}")
"""Where such a run may be at all: one set of characters is found many times faster than the run's own form."""

_SPACES = b" \t\n\r\f\v"
_DIGITS = b"0123456789"


def _as_run(letters: bytes) -> bytes:
    """Return the table that makes each of these characters an x, and any other a NUL."""
    return bytes(120 if byte in letters else 0 for byte in range(256))


_BASE64_RUNS = _as_run(_DIGITS + b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/_-")
_HEX_RUNS = _as_run(_DIGITS + b"abcdefABCDEF" + _SPACES + b"x\\%:,;.-")
_NUMBER_RUNS = _as_run(_DIGITS + _SPACES + b",")
_PRINTABLE_RUNS = _as_run(bytes(range(32, 127)) + b"\t\r\n")
_RUNS32 = (_as_run(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), _as_run(b"abcdefghijklmnopqrstuvwxyz234567"))
"""Each character of such a run as an x: where there is one is told ten times faster than by the pattern."""

_HEX = re.compile(rb"(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[\s:,;.-]{0,3}){10,}")
_NOT_HEX = re.compile(rb"0x|\\x|[^0-9A-Fa-f]")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE = re.compile(
    rb"\\u\{?0{0,4}([0-9A-Fa-f]{2})\}?|\\x([0-9A-Fa-f]{2})|&#x0*([0-9A-Fa-f]{2});|&#0*([0-9]{2,3});|\\([0-7]{3})"
)
_NUMBERS = re.compile(rb"(?<![\w.])\d{1,3}(?:\s{0,8},\s{0,8}\d{1,3}){11,}(?![\w.])")
_QUOTED_PRINTABLE = re.compile(rb"=([0-9A-F]{2})")
_GAP = rb"[ \t]{0,8}"
_PLUS = rb"(?:\+|\.\.?|\|\||&|,|<>)?"
_JUNCTION = re.compile(  # begun by sets of characters, which are looked for twice as fast as two forms are
    rb"[\\\"'`](?=[ \t+.|&,<>\\\r\nfbru\"'`])(?:(?<=\\)\r?\n[ \t]*|(?<!\\)"
    + _GAP + _PLUS + _GAP + rb"(?:\\?\r?\n[ \t]*)?" + _PLUS + _GAP + rb"[fbru]?[\"'`])"
)  # fmt: skip
_WRAP = re.compile(rb"(?<=[0-9A-Za-z_+/-])\r?\n[ \t>#*/]*(?=[0-9A-Za-z_+/-])")
_MARK = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]")
_ROT13 = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", b"NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)


def text_of(data: bytes) -> bytes:
    """Return data's text: itself where it is one, else its printable stretches, a line each."""
    return data if is_text(data) else b"\n".join(_printable(data))


def is_text(data: bytes) -> bool:
    """True where the first 8000 bytes hold no NUL: what git itself goes by."""
    return b"\0" not in data[:8000]


def joined(text: bytes) -> bytes:
    """Return a text whose string literals and lines, where one goes on in the next, stand as one."""
    return _WRAP.sub(b"", _JUNCTION.sub(b"", text))


def whole_views(text: bytes) -> Iterator[bytes]:
    """Yield the text written in another way as a whole: backwards, and each letter 13 further."""
    yield text[::-1]
    yield text.translate(_ROT13)


def plain(data: bytes) -> bytes:
    """Return the text with its writing undone: wide and look-alike characters, escapes, literals cut in two.

    All at once, so that there is one such view of a text and not one for each choice among them.
    """
    text = data
    if not is_text(data):
        text = b"\n".join(_printable(data.replace(b"\0", b"")))
    elif not data.isascii():
        import unicodedata

        spelled = unicodedata.normalize("NFKD", _MARK.sub("", data.decode("utf-8", "ignore")))
        text = spelled.encode("ascii", "ignore")
    if b"%" in text:
        text = _PERCENT.sub(lambda found: binascii.unhexlify(found[1]), text)
    if b"\\" in text or b"&#" in text:
        text = _ESCAPE.sub(_escaped, text)
    if b"=" in text:
        text = _QUOTED_PRINTABLE.sub(lambda found: binascii.unhexlify(found[1]), re.sub(rb"=\r?\n", b"", text))
    return _JUNCTION.sub(b"", text)


def is_threes(text: bytes) -> bool:
    """True for rows of threes with nothing to read between them, which hex of hex of anything looks like as well.

    Hex of a row of threes is such a row: taken off again and again, it would pass for layer on layer of encoding.
    """
    return b"3" in text and _PRINTABLE.search(_THREES.sub(b"\0", text)) is None


def wrung(text: bytes) -> Iterator[bytes]:
    """Yield what the lines of a text are as hex, then what those are, until nothing is left: each is half as long."""
    lines = set(text.split(b"\n"))
    while lines:
        lines = {part for line in lines for run in _hex(line) for part in _printable(run)}
        if lines:
            yield b"\n".join(sorted(lines))


def decoded(text: bytes) -> Iterator[bytes]:
    """Yield what the encoded runs of a text hold."""
    for runs in (_base64(text), _base32(text), _hex(text), _numbers(text)):
        yield from _readable(runs)


def _escaped(found: re.Match[bytes]) -> bytes:
    digits = found[1] or found[2] or found[3]
    if digits:
        return binascii.unhexlify(digits)
    number = int(found[4]) if found[4] else int(found[5], 8)
    return bytes([number]) if number < 256 else found[0]


def _readable(runs: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what reads as text of all runs together, and by itself each run that begins as an archive does."""
    from opsexec.far.git_archives import is_archive

    kept = []
    for run in runs:
        if is_archive(run):
            yield run
        if run.count(b"\0") * 3 > len(run):
            run = run.replace(b"\0", b"")
        kept += _printable(run)
    if kept:
        yield b"\n".join(kept)


def _printable(data: bytes) -> list[bytes]:
    return [found.group() for found in _each(_PRINTABLE, 10, data, _PRINTABLE_RUNS)]


def _each(form: re.Pattern[bytes], least: int, text: bytes, table: bytes) -> Iterator[re.Match[bytes]]:
    """Yield what `form.finditer` would, of a form that begins with `least` of the table's characters, all of them one.

    Where those stand is told many times faster without the form.
    """
    runs = text.translate(table)
    run = b"x" * least
    at = runs.find(run)
    while at >= 0:
        found = form.match(text, at)
        if found is not None:
            yield found
        at = runs.find(run, at + 1 if found is None else found.end())


def _base64(text: bytes) -> Iterator[bytes]:
    for found in _each(_BASE64, 14, text, _BASE64_RUNS):
        run = found.group()
        if run.islower():
            continue  # words: base64 of anything has capitals
        whole = run.replace(b"-", b"+").replace(b"_", b"/")
        candidates = [_NOT_BASE64.sub(b"", whole)]
        if candidates[0] != whole.rstrip(b"="):
            candidates += [each for each in re.split(rb"[^0-9A-Za-z+/]+", whole) if len(each) >= 14]
        for each in candidates:
            for cut in range(4):
                part = each[cut:]
                part = part[: len(part) - (len(part) % 4 == 1)]
                yield binascii.a2b_base64(part + b"=" * (-len(part) % 4))


def _base32(text: bytes) -> Iterator[bytes]:
    import base64

    for found in (each for form, runs in zip(_BASE32, _RUNS32) for each in _each(form, 16, text, runs)):
        run = found.group().translate(None, b" \t\r\n\v\f").upper()
        run = run[: len(run) - (len(run) % 8 in (1, 3, 6))]
        yield base64.b32decode(run + b"=" * (-len(run) % 8))


def _hex(text: bytes) -> Iterator[bytes]:
    regions = _each(_HEX_REGION, 20, text, _HEX_RUNS)
    for found in (each for part in regions for each in _HEX.finditer(part.group())):
        run = _NOT_HEX.sub(b"", found.group())
        for cut in (0, 1):
            yield binascii.unhexlify(run[cut : len(run) - (len(run) - cut) % 2])


def _numbers(text: bytes) -> Iterator[bytes]:
    """Lists of byte values, as programs write them: `[103, 104, 112, ...]`."""
    regions = _each(_NUMBER_REGION, 23, text, _NUMBER_RUNS)
    for found in (each for part in regions for each in _NUMBERS.finditer(part.group())):
        numbers = [int(each) for each in found.group().split(b",")]
        if max(numbers) < 256:
            yield bytes(numbers)
