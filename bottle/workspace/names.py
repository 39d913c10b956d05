"""Names as a file system may take them: two texts that some system takes for one file have one folded form."""

from __future__ import annotations

import re
import unicodedata

_SHORT = re.compile(r"(?P<head>[^~]{1,8})~[0-9]{1,6}\Z")
_STREAM = re.compile(r":.*\Z", re.DOTALL)
SHORT_NAMES = {"git": ".git", "gitmod": ".gitmodules", "gitatt": ".gitattributes", "claude": ".claude"}
"""8.3 names that Windows makes of names with a leading dot: `GIT~1` is `.git` there."""


def folded(name: str) -> str:
    """Return one name (no path) without what file systems ignore: case, form, invisible characters, dots at the end."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cf", "Cc"))
    text = unicodedata.normalize("NFKC", text.casefold())
    text = _STREAM.sub("", text).rstrip(" .")
    short = _SHORT.match(text)
    return SHORT_NAMES.get(short["head"], text) if short else text


def folded_path(path: str) -> tuple[str, ...]:
    """Return each name of a path, folded; a backslash parts names on some systems."""
    return tuple(folded(part) for part in re.split(r"[/\\]", path))


def same_file_key(path: str) -> str:
    """Return what two paths share when a system that ignores case or Unicode form takes them for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
