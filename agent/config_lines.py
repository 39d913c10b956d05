"""Where in a config file a value stands, so that an error can point at its line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opsexec.toml_lines import line_of

_GRANT = re.compile(r"\s*\[\[\s*grants\s*\]\]")
_HEADER = re.compile(r"\s*\[")


def place(text: str, path: Sequence[str | int]) -> int:
    """Return the 1-based line of a pydantic location like ("grants", 1, "principal")."""
    names = [each for each in path if isinstance(each, str)]
    if len(path) < 2 or path[0] != "grants" or not isinstance(path[1], int):
        return line_of(text, names)
    lines = text.splitlines()
    headers = [at for at, line in enumerate(lines) if _GRANT.match(line)]
    if path[1] >= len(headers):
        return line_of(text, ["grants"])
    begin = headers[path[1]]
    end = next((at for at in range(begin + 1, len(lines)) if _HEADER.match(lines[at])), len(lines))
    return begin + line_of("\n".join(lines[begin:end]), names)
