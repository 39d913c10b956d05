"""What a directory's own git configuration runs or reads of that directory itself: hooks, filters, included files."""

from __future__ import annotations

import posixpath
import re

CONFIG = ".git/config"
MAX_CONFIG = 1 << 20

_SECTION = re.compile(r"\[\s*([A-Za-z0-9.-]+)")
_WORD = re.compile(r"""[^\s"'`!;&|()<>=]+""")
_RUN = frozenset((
    "askpass", "attributesfile", "clean", "cmd", "command", "defaultkeycommand", "driver", "editor", "fsmonitor",
    "gitproxy", "helper", "hookspath", "packobjectshook", "pager", "path", "process", "program", "smudge",
    "sshcommand", "textconv",
))  # fmt: skip
"""Variables whose value git runs, or reads more of the same from (git-config(1)), whatever section they stand in."""


def named(config: bytes) -> set[str]:
    """Return the paths of the directory that its `.git/config` names there, by words: relative ones alone.

    A hook's directory counts from the top of the directory, an included file from `.git`; both are taken.
    """
    found: set[str] = set()
    section = ""
    for line in config[:MAX_CONFIG].decode("utf-8", "replace").split("\n"):
        text = line.strip()
        if header := _SECTION.match(text):
            section, text = header[1].lower(), text.rpartition("]")[2]
        key, _, value = text.partition("=")
        if key.strip().lower() not in _RUN and section not in ("alias", "filter"):
            continue
        for word in _WORD.findall(value):
            for start in ("", ".git"):
                path = posixpath.normpath(posixpath.join(start, word))
                if path not in (".", "..", ".git") and not path.startswith(("/", "../", ".git/", "~")):
                    found.add(path)
    return found
