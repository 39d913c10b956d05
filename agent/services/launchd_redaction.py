"""What launchd's own documents say of environments and arguments, taken apart so that no value of one leaves the host.

A property list, and the page that `launchctl print` shows of a job.
"""

from __future__ import annotations

import datetime
import plistlib
import re
from typing import Any

from agent.services.redaction import OPEN_NAMES, Apart
from agent.services.secret_shapes import MASK, SECRET_NAME
from opsexec.handlers.launchctl import END_OF_BLOCK
from opsexec.handlers.launchd import ODD_PLIST

MOST_VALUES = 20_000
"""Values a property list holds at most: in a binary one they may stand for each other without end."""
_BLOCK = re.compile(r"[ \t]*(?:[a-z]+ )?(environment|arguments) = \{\s*\Z")
_PAIR = re.compile(r"([ \t]*)([^\s=]{1,200}) => (.*)\Z")
_ASSIGNED = re.compile(r"(--?[\w-]+=|[A-Za-z_]\w*=)(.+)\Z", re.DOTALL)


class _Masking:
    def __init__(self) -> None:
        self.count = 0
        self.left = MOST_VALUES
        self.variables: list[tuple[str, str]] = []
        self.secrets: list[str] = []

    def variable(self, name: str, value: str) -> str:
        if name in OPEN_NAMES or name == "XPC_SERVICE_NAME" or value in ("", MASK):
            return value
        self.variables.append((name, value))
        self.count += 1
        return MASK

    def words(self, words: list[str]) -> list[str]:
        """Return a command's words: what follows a telling option, or stands behind its `=`, is none to show."""
        kept: list[str] = []
        for at, word in enumerate(words):
            before = words[at - 1] if at else ""
            assigned = _ASSIGNED.match(word)
            if before.startswith("-") and "=" not in before and SECRET_NAME.search(before) and word[:1] not in "-/":
                kept.append(self.secret(word))
            elif assigned and SECRET_NAME.search(assigned[1]) and not assigned[2].startswith("/"):
                kept.append(assigned[1] + self.secret(assigned[2]))
            else:
                kept.append(word)
        return kept

    def secret(self, value: str) -> str:
        if value == MASK:
            return value
        self.secrets.append(value)
        self.count += 1
        return MASK

    def plain(self, value: Any, key: str = "") -> Any:
        """Return a property list's value as JSON has it; raises ValueError for one without end."""
        self.left -= 1
        if self.left < 0:
            raise ValueError("it holds more values than a property list does")
        if isinstance(value, dict):
            if key == "EnvironmentVariables":
                return {str(name): self.variable(str(name), str(self.plain(each))) for name, each in value.items()}
            return {str(name): self.plain(each, str(name)) for name, each in value.items()}
        if isinstance(value, list):
            kept = [self.plain(each, key) for each in value]
            texts = all(isinstance(each, str) for each in kept)
            return self.words(kept) if key == "ProgramArguments" and texts else kept
        if isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, bytes):
            self.count += 1
            return f"({len(value)} bytes)"
        return value.isoformat() if isinstance(value, datetime.datetime) else f"({type(value).__name__})"


def plist_apart(data: bytes) -> Apart:
    """Return a property list as JSON data; raises ValueError for what is none."""
    masking = _Masking()
    try:
        value = masking.plain(plistlib.loads(data))
    except ODD_PLIST as error:
        raise ValueError("it is no property list") from error
    return Apart(value, masking.count, masking.variables, masking.secrets)


def page_apart(text: str) -> Apart:
    """Return what `launchctl print` says of a job, its environments and arguments taken apart."""
    masking = _Masking()
    kept: list[str] = []
    block = ""
    words: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        found, pair = _BLOCK.match(line), _PAIR.match(line)
        if line.rstrip() == END_OF_BLOCK:  # a value may hold a brace of its own, indented otherwise
            kept += [f"\t\t{each}" for each in masking.words(words)]
            block, words = "", []
        elif not block and found:
            block = found[1]
        elif block == "arguments":
            words.append(line.strip())
            continue
        elif pair:  # wherever it stands
            line = f"{pair[1]}{pair[2]} => {masking.variable(pair[2], pair[3].strip())}"
        elif block == "environment" and line.strip():
            line = f"\t\t{masking.secret(line.strip())}"  # a value that goes on over lines
        kept.append(line)
    kept += [f"\t\t{each}" for each in masking.words(words)]  # it was cut off
    return Apart("\n".join(kept) + "\n", masking.count, masking.variables, masking.secrets)
