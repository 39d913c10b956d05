"""What git runs or reads of a directory by its own configuration and the person's: hooks, filters, includes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

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


def named(config: bytes, places: Collection[str] = (), home: str = "", *, persons: bool = False) -> set[str]:
    """Return the paths of a directory that git's configuration names there, by words, relative to it.

    A hook's directory counts from the top of the directory, an included file from `.git`; both are taken. `places`:
    where the directory is, for words that are whole paths into it; `home`: what `~` is there. `persons`: it is the
    person's, which counts in every directory: a name without a slash or a leading dot is a program's there as a rule
    (`pager = less`) and names no path.
    """
    found: set[str] = set()
    for word in _words(config):
        if persons and "/" not in word and not word.startswith("."):
            continue
        whole = _into(word, places, home)
        for start in ("", ".git"):
            path = posixpath.normpath(posixpath.join(start, word) if whole is None else whole)
            if path not in (".", "..", ".git") and not path.startswith(("/", "../", ".git/", "~")):
                found.add(path)
    return found


def persons_files(environment: Mapping[str, str], home: str) -> list[Path]:
    """Return where git looks for what counts in every directory (git-config(1)), existing or not."""
    settings = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    own = [environment["GIT_CONFIG_GLOBAL"]] if "GIT_CONFIG_GLOBAL" in environment else [
        f"{settings}/git/config", f"{home}/.gitconfig"
    ]  # fmt: skip
    return [Path(each) for each in (environment.get("GIT_CONFIG_SYSTEM", "/etc/gitconfig"), *own) if each]


def read_config(path: Path) -> bytes:
    """Return the start of a configuration; nothing of one that isn't there, or that git couldn't read either."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(MAX_CONFIG)
    except OSError:
        return b""


def _into(word: str, places: Collection[str], home: str) -> str | None:
    """Return the part of a whole path below the directory; None for what is no whole path into it."""
    whole = posixpath.normpath(home + word[1:] if home and word.startswith("~/") else word)
    found = (posixpath.relpath(whole, place) for place in places if whole.startswith(f"{place}/"))
    return next(found, None)


def _words(config: bytes) -> Iterator[str]:
    """Yield the words of every value that git runs, or reads more of the same from."""
    section = ""
    for line in config[:MAX_CONFIG].decode("utf-8", "replace").split("\n"):
        text = line.strip()
        if header := _SECTION.match(text):
            section, text = header[1].lower(), text.rpartition("]")[2]
        key, _, value = text.partition("=")
        if key.strip().lower() not in _RUN and section not in ("alias", "filter"):
            continue
        yield from _WORD.findall(value)
