"""Names as a file system may take them: two texts that some system takes for one file have one folded form."""

from __future__ import annotations

import re
import unicodedata

_SHORT = re.compile(r"(?P<head>[^~.]{1,8})~(?P<number>[0-9]{1,6})(?:\.(?P<end>[^.]{1,3}))?\Z")
_HASHED = re.compile(r"[^~.]{2}[0-9a-f]{4}\Z")
_STREAM = re.compile(r":.*\Z", re.DOTALL)
SHORT_LENGTH = 8
"""Of an 8.3 name, what stands before its dot: Windows makes `GITMOD~1` of `.gitmodules`, `GIT~1` of `.git`."""


def folded(name: str) -> str:
    """Return one name (no path) without what file systems ignore: case, form, invisible characters, dots at the end."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cf", "Cc"))
    text = unicodedata.normalize("NFKC", text.casefold())
    return _STREAM.sub("", text).rstrip(" .")


def is_short(name: str) -> bool:
    """True for a folded name that has the form of the second names that Windows gives to files."""
    return _SHORT.match(name) is not None


def may_be_short_for(name: str, other: str) -> bool:
    """True when a folded name may be the one that Windows gives to a file called `other`, beside that.

    Of a name are left its first six characters, or less before a longer number, or two and four digits of a checksum.
    """
    short = _SHORT.match(name)
    if short is None:
        return False
    plain = other.lstrip(".")
    base, end = plain.rpartition(".")[::2] if "." in plain else (plain, "")
    head = short["head"]
    if (short["end"] or "") != end[:3]:
        return False
    cut = len(head) + 1 + len(short["number"]) >= SHORT_LENGTH
    return head == base or (cut and base.startswith(head)) or (_HASHED.match(head) is not None and base[:2] == head[:2])


def folded_path(path: str) -> tuple[str, ...]:
    """Return each name of a path, folded; a backslash parts names on some systems."""
    return tuple(folded(part) for part in re.split(r"[/\\]", path))


def same_file_key(path: str) -> str:
    """Return what two paths share when a system that ignores case or Unicode form takes them for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
