"""rsync's exclude patterns, as rsync(1) FILTER RULES has them, for copies that rsync doesn't carry.

Without a slash a pattern is about the last name; with one, about the last names of the path, or about the whole path
when it begins with a slash (the root is what is copied) or holds `**`. `*` and `?` stay within a name, `**` crosses
names, `[...]` is one byte; a trailing slash means directories only, a trailing `/***` a directory and all in it.
A pattern that isn't understood here is refused for rsync too, so that both always copy the same.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WILD = b"*?["
SLASH = 0x2F
EVERY = bytes(range(256))
_STAR, _STARS, _ANY = "*", "**", "?"
MAX_PATTERN, MAX_PATTERNS = 4096, 1 << 15  # bytes of one, as of a path, and of all: an agent's loop waits for them


class Pattern:
    """One exclude pattern; raises ValueError when it is not one that is understood."""

    def __init__(self, text: bytes) -> None:
        if text[:2] in (b"+ ", b"- ") or text == b"!":
            raise ValueError("is an include or a list of rules, not a pattern")
        self.text = text
        self.directories = text.endswith(b"/") and len(text) > 1
        body = text[:-1] if self.directories else text
        self.anchored = body.startswith(b"/")
        if self.anchored:
            body = body[1:]
        if not body:
            raise ValueError("names nothing")
        self.wild = any(byte in WILD for byte in body)
        self.crossing = b"**" in body
        self.tree = body.endswith(b"/***")
        self.slashes = body.count(b"/")
        self.body = body
        self.tokens = tokens_of(body) if self.wild else []

    def matches(self, path: bytes, directory: bool) -> bool:
        """True when it excludes this path, which is relative to what is copied and has no trailing slash."""
        if self.directories and not directory:
            return False
        if directory and self.tree and self._matches(path + b"/"):
            return True
        return self._matches(path)

    def _matches(self, path: bytes) -> bool:
        if self.anchored:
            return self._accepts(path)
        if not self.crossing:
            return self._accepts(_last_names(path, self.slashes + 1))
        if self.tokens[0] == _STARS:
            return self._accepts(b"/" + path)
        while not self._accepts(path):
            _, slash, path = path.partition(b"/")
            if not slash:
                return False
        return True

    def _accepts(self, text: bytes) -> bool:
        return accepts(self.tokens, text) if self.wild else text == self.body


def tokens_of(body: bytes) -> list[object]:
    """Return a pattern's parts: a byte, a wildcard's name, or a set of bytes. Raises ValueError."""
    tokens = []  # type: list[object]
    at = 0
    while at < len(body):
        byte = body[at : at + 1]
        at += 1
        if byte == b"\\":
            if at == len(body):
                raise ValueError("ends in a backslash that escapes nothing")
            tokens.append(body[at])
            at += 1
        elif byte == b"*":
            start = at - 1
            while body[at : at + 1] == b"*":
                at += 1
            tokens.append(_STARS if at - start > 1 else _STAR)
        elif byte == b"?":
            tokens.append(_ANY)
        elif byte == b"[":
            members, at = _class(body, at)
            tokens.append(members)
        else:
            tokens.append(byte[0])
    return tokens


def _class(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes that a `[...]` stands for, each once, and where it ends. A slash is never among them."""
    negated = body[at : at + 1] in (b"!", b"^")
    at += negated
    members = bytearray(b"/")
    start = at
    while True:
        if at >= len(body):
            raise ValueError("has a [ that is not closed")
        byte = body[at]
        if byte == 0x5D and at > start:
            break
        if body[at : at + 2] == b"[:":
            raise ValueError("has a named class like [:alpha:]; list the characters")
        if byte == 0x5C and at + 1 < len(body):
            at += 1
            byte = body[at]
        if byte == SLASH:
            raise ValueError("has a slash in [...]")
        if body[at + 1 : at + 2] == b"-" and body[at + 2 : at + 3] not in (b"]", b""):
            at += 2
            if body[at] == 0x5C and at + 1 < len(body):
                at += 1
            if body[at] == SLASH:
                raise ValueError("has a slash in [...]")
            members += EVERY[byte : body[at] + 1]
        else:
            members.append(byte)
        at += 1
    others = EVERY.translate(None, members)
    return (others if negated else EVERY.translate(None, others + b"/")), at + 1


def accepts(tokens: Sequence[object], text: bytes) -> bool:
    """True when the parts match the whole text. All ways are followed at once: no pattern makes it slow."""
    end = len(tokens)
    states = _skip_stars(tokens, {0})
    for byte in text:
        following = set()  # type: set[int]
        for state in states:
            if state == end:
                continue
            token = tokens[state]
            if token == _STARS or (token == _STAR and byte != SLASH):
                following.add(state)
            elif token == byte or (token == _ANY and byte != SLASH) or (isinstance(token, bytes) and byte in token):
                following.add(state + 1)
        if not following:
            return False
        states = _skip_stars(tokens, following)
    return end in states


def _skip_stars(tokens: Sequence[object], states: set[int]) -> set[int]:
    """Add the states behind wildcards that may stand for nothing."""
    for state in list(states):
        while state < len(tokens) and tokens[state] in (_STAR, _STARS):
            state += 1
            states.add(state)
    return states


def _last_names(path: bytes, count: int) -> bytes:
    at = len(path)
    while count:
        at = path.rfind(b"/", 0, at)
        if at < 0:
            return path
        count -= 1
    return path[at + 1 :]


class Excludes:
    """All patterns of one copy. Raises ValueError, whose text says which pattern and why."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self.patterns = []  # type: list[Pattern]
        size = 0
        for text in patterns:
            size += len(text)
            try:
                if len(text) > MAX_PATTERN:
                    raise ValueError(f"is over {MAX_PATTERN} bytes")
                if size > MAX_PATTERNS:
                    raise ValueError(f"is one too many: all of them are over {MAX_PATTERNS} bytes")
                self.patterns.append(Pattern(text))
            except ValueError as error:
                raise ValueError(f"exclude {text[:80].decode('utf-8', 'replace')!r} {error}") from None

    def excludes(self, path: bytes, directory: bool) -> bool:
        """True when a pattern excludes this path."""
        return any(pattern.matches(path, directory) for pattern in self.patterns)
