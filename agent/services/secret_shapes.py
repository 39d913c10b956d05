"""What looks like a secret in a definition: by its name, or by its shape."""

from __future__ import annotations

import re

SECRET_NAME = re.compile(r"(?i)(pass(word|wd)?|secret|token|api_?key|credential|private_?key)")
SECRET_VALUE = re.compile(
    r"-----BEGIN|eyJ[A-Za-z0-9_-]{10,}\.|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|xox[abp]-|://[^/\s:@]+:[^/\s:@]+@"
)


def secret_names(value: str) -> list[str]:
    """Return the variables of an Environment= line that look like secrets; never their values."""
    found = []
    for match in re.finditer(r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_]*)=(\"[^\"]*\"|[^\s\"]*)", value):
        name, content = match[1], match[2].strip('"')
        file_like = name.upper().endswith(("_FILE", "_PATH", "_DIR")) or content.startswith("/")
        if content and (SECRET_VALUE.search(content) or (SECRET_NAME.search(name) and not file_like)):
            found.append(name)
    return found


MASK = "***"
# Every repetition is bounded: logs are hostile, and an unbounded one before a word takes time by the square of a line.
_SHAPES = (
    re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(-----END [^-]*-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?"),
    re.compile(
        r"\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]+"
    ),
    re.compile(r"\bsk-[A-Za-z0-9_-]{20,}|\btskey-[\w-]{8,}|\bhf_[A-Za-z0-9]{20,}"),
)
_KEY_END = re.compile(r"-----END [^-\n]{0,40}PRIVATE KEY-----")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}[ \t\r]*\Z")
_LAST_KEY_LINE = re.compile(r"[A-Za-z0-9+/=][ \t\r]*\Z")
"""A key's last line holds what is left over, be it a single character."""
_LINE = 200
"""How many characters at the end of a line are looked at: a key's have 64 or 76, behind what a log sets before."""
_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization\s{0,8}[:=]\s{0,8}(?:basic|bearer|token)?\s{0,8})[^\s\"',;]+")
_NAMED = re.compile(
    r"(?i)([\w.-]{0,64}(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential|private[_-]?key)[\w.-]{0,64}[\"']?"
    r"(?:\s{0,8}[=:]\s{0,8}|\s{1,8}))(\"[^\"]*\"|'[^']*'|[^\s\"',;&]+)"
)


def mask(text: str) -> str:
    """Return a text without what looks like a secret: by its shape, in a URL or header, or after a telling name."""
    return mask_counted(text)[0]


def mask_counted(text: str) -> tuple[str, int]:
    """Return the same, and how many places were masked."""
    count = 0
    for shape in _SHAPES:
        text, found = shape.subn(MASK, text)
        count += found
    pieces, at = [], 0
    for start, end in headless_keys(text):
        pieces += [text[at:start], MASK]
        at, count = end, count + 1
    text = "".join([*pieces, text[at:]])
    for pattern in (_IN_URL, _HEADER):
        text, found = pattern.subn(rf"\1{MASK}", text)
        count += found

    def named(match: re.Match[str]) -> str:
        nonlocal count
        kept = _named(match)
        count += kept != match[0]
        return kept

    return _NAMED.sub(named, text), count


def telling_values(text: str) -> list[str]:
    """Return the values that `mask` would take away: what is a secret in one place is one in every other."""
    found = [match[0] for shape in _SHAPES for match in shape.finditer(text)]
    found += [text[start:end] for start, end in headless_keys(text)]
    found += [match[0].rpartition(match[1])[2] for pattern in (_IN_URL, _HEADER) for match in pattern.finditer(text)]
    found += [match[2].strip("\"'") for match in _NAMED.finditer(text) if _named(match) != match[0]]
    return found


def headless_keys(text: str) -> list[tuple[int, int]]:
    """Return where private keys stand whose first lines are cut away, as where only the end of a log was read."""
    spans: list[tuple[int, int]] = []
    for last in _KEY_END.finditer(text):
        floor = spans[-1][1] if spans else 0
        start = max(floor, text.rfind("\n", 0, last.start()) + 1)
        line = _LAST_KEY_LINE
        while start > floor:
            before = text.rfind("\n", 0, start - 1) + 1
            if not line.search(text, max(before, start - 1 - _LINE), start - 1):
                break
            start, line = max(floor, before), _KEY_LINE
        spans.append((start, last.end()))
    return spans


def _named(match: re.Match[str]) -> str:
    """A telling name before a plain word is only prose, as in "the token expired"; an option's value is masked."""
    name, value = match[1], match[2]
    if name.lstrip("-\"'").startswith("no-"):
        return match[0]  # a switch, as systemctl's --no-ask-password
    if name[-1:].isspace() and not re.search(r"[=:]\s*$", name) and not re.search(r"(^|\s)--?[\w-]+\s+$", " " + name):
        return match[0]
    return match[0] if value.strip("\"'").startswith(("/", "*")) else name + MASK
