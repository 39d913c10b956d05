"""Pattern matching for grants: paths, argv words and names. Pure; used by the caller and again on the host."""

from __future__ import annotations

# Runs on Python 3.8 hosts too: typing stays in annotations, which are never evaluated.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def normalise(path: str) -> str:
    """Return an absolute path without `.`, `..`, empty segments or a trailing slash.

    Raises ValueError for a path that is relative, empty, longer than 4096 characters (PATH_MAX, in bytes) or holds NUL.
    """
    if not path.startswith("/"):
        raise ValueError("not an absolute path")
    if "\0" in path:
        raise ValueError("holds a NUL byte")
    if len(path) > 4096:
        raise ValueError("longer than 4096 characters")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts:
                parts.pop()
            continue
        parts.append(part)
    return "/" + "/".join(parts)


def word_matches(pattern: str, word: str) -> bool:
    """Match one word: `*` stands for any run of characters, everything else for itself. Linear time."""
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return pattern == word
    first, last = pieces[0], pieces[-1]
    if len(word) < len(first) + len(last) or not word.startswith(first) or not word.endswith(last):
        return False
    at, end = len(first), len(word) - len(last)
    for piece in pieces[1:-1]:
        found = word.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def path_matches(pattern: str, path: str) -> bool:
    """Match a normalised path: `*` stays inside one segment, `**` crosses segments.

    `/srv/**` admits `/srv` itself and everything below; `/srv/*` admits the direct children only.
    """
    return _segments_match(_segments(pattern), _segments(path))


def _segments(path: str) -> Sequence[str]:
    return path.split("/")[1:] if path != "/" else []


def _segments_match(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Classic two-pointer glob with one backtrack point, so the cost stays len(pattern) * len(segments)."""
    p = s = 0
    star = -1
    mark = 0
    while s < len(segments):
        if p < len(pattern) and pattern[p] == "**":
            star, mark = p, s
            p += 1
        elif p < len(pattern) and word_matches(pattern[p], segments[s]):
            p += 1
            s += 1
        elif star >= 0:
            mark += 1
            p, s = star + 1, mark
        else:
            return False
    while p < len(pattern) and pattern[p] == "**":
        p += 1
    return p == len(pattern)


def argv_matches(pattern: Sequence[str], argv: Sequence[str]) -> bool:
    """Match words one to one; the first is a path pattern or `**`; `**` as the last word takes any further words."""
    if not argv:
        return False
    if pattern[0] == "**":
        return True
    words = list(pattern)
    rest = words[-1] == "**" and len(words) > 1
    if rest:
        words.pop()
    if len(argv) < len(words) or (len(argv) > len(words) and not rest):
        return False
    if not path_matches(words[0], argv[0]):
        return False
    return all(word_matches(p, w) for p, w in zip(words[1:], argv[1:]))


def admits_path(layers: Sequence[Sequence[str]], path: str) -> bool:
    """True when every layer holds a pattern that admits this normalised path; no layer at all admits nothing."""
    return bool(layers) and all(any(path_matches(p, path) for p in layer) for layer in layers)
