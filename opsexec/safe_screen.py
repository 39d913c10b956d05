"""`SafeScreen`: lets through what draws on a terminal, and nothing else of what a program sent.

What somebody replays or watches was written for another terminal, by a program that may wish them ill. Passed on:
text, cursor movement, erasing, scrolling, colours, character sets, and the modes that change how the screen looks.
Left out: everything that makes a terminal answer (and so type) or act outside its screen: OSC (clipboard, title, links,
palette), DCS, APC, PM and SOS strings, reports and queries, window operations, printing, key and mouse modes,
answerback, and the switch to another encoding, in which other bytes would be commands.
The sequences are those of ECMA-48 and of xterm (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html).
"""

from __future__ import annotations

import codecs
import re

_MODES = frozenset((3, 5, 6, 7, 12, 25, 45, 47, 69, 1047, 1048, 1049, 2026))
"""Private modes that change what is seen: columns, colours, origin, wrapping, cursor, screens, margins, updates."""

_DRAWING = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu")
"""Final characters of CSI sequences without a private mark: movement, erasing, scrolling, tabs, colours, margins."""

_ESC_DRAWING = frozenset("78DEHMNOc")
"""After ESC alone: cursor kept and put back, lines, tabs, character sets, reset."""

MAX_SEQUENCE = 256
"""Characters a control sequence may have; a longer one is left out."""

_TOKEN = re.compile(
    r"""(?P<text>(?:[^\x00-\x1f\x7f-\x9f]+|[\x07-\x0f]|\x1b\[(?:[0-9]{0,4}[;:]){0,16}[0-9]{0,4}[A-HJKm])+)
      | (?:\x1b\[|\x9b)(?P<csi>[\x20-\x3f]{0,256}[\x40-\x7e])
      | (?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])(?P<string>)
      | \x1b(?P<set>[()*+\-./][\x30-\x7e]|\#[3-68])
      | \x1b(?P<other>[\x20-\x2f]{1,8}[\x30-\x7e])
      | \x1b(?P<esc>[\x30-\x4f\x51-\x57\x59\x5a\x60-\x7e])
    """,
    re.VERBOSE,
)
_PARTIAL = re.compile(r"(?:\x1b(?:\[[\x20-\x3f]{0,256}|[\x20-\x2f]{1,8})?|\x9b[\x20-\x3f]{0,256})\Z")
_STRING_END = re.compile(r"\x1b\\|[\x07\x18\x1a\x9c]|\x1b(?=[^\\])")


class SafeScreen:
    """Takes a stream of output in blocks, however it is cut; returns what may be shown of each."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._in_string = False
        self.left_out = 0
        """Sequences that were left out so far."""

    def pass_on(self, data: bytes) -> bytes:
        """Return what may be shown of the next block."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._skip_string(text, at)
                continue
            found = _TOKEN.match(text, at)
            if found is None:
                if _PARTIAL.match(text, at) and len(text) - at <= MAX_SEQUENCE + 2:
                    self._rest = text[at:]
                    break
                self.left_out += 1
                at += 1
                continue
            at = found.end()
            if found["text"] is not None:
                shown.append(found["text"])
            elif found["string"] is not None:
                self._in_string = True
                self.left_out += 1
            elif found["other"] is None and (kept := _kept(found)) is not None:
                shown.append(kept)
            else:
                self.left_out += 1
        return "".join(shown).encode()

    def _skip_string(self, text: str, at: int) -> int:
        """Return where a string that is left out ends; nothing of it is kept."""
        end = _STRING_END.search(text, at)
        if end is not None:
            self._in_string = False
            return end.end() if end[0] != "\x1b" else end.start()
        if text.endswith("\x1b"):
            self._rest = "\x1b"
        return len(text)


def _kept(found: re.Match[str]) -> str | None:
    """Return a sequence as it may be shown; None for one that may not."""
    if found["set"] is not None:
        return "\x1b" + found["set"]
    if found["esc"] is not None:
        return "\x1b" + found["esc"] if found["esc"] in _ESC_DRAWING else None
    body = found["csi"]
    parameters, final = body[:-1], body[-1]
    if re.search(r"[0-9]{5}", parameters):
        return None
    if re.fullmatch(r"[0-9;:]*", parameters):
        return f"\x1b[{body}" if final in _DRAWING else None
    if body == "!p" or re.fullmatch(r"[0-6]? q", body):
        return f"\x1b[{body}"
    if final in "hl" and re.fullmatch(r"\?[0-9;]*", parameters):
        modes = [each for each in parameters[1:].split(";") if each.isdigit() and int(each) in _MODES]
        return f"\x1b[?{';'.join(modes)}{final}" if modes else None
    return None
