"""What git runs or reads of a directory by its own configuration and the person's: hooks, filters, includes."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

CONFIG = ".git/config"
MAX_CONFIG = 1 << 20

MAX_INCLUDED, MAX_INCLUDED_BYTES = 100, 8 << 20
"""What is read of all that one configuration includes, with what that includes."""

_SECTION = re.compile(r"\[\s*([A-Za-z0-9.-]+)")
_HEADER = re.compile(r"""\[\s*([A-Za-z0-9.-]+)\s*(?:"(?:[^"\\]|\\.)*"\s*)?\]""")
_PART = re.compile(r'"((?:[^"\\]|\\.)*)"?|([^"\\#;]|\\.)|([#;])')
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
        whole = into(word, places, home)
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


def included(config: bytes, file: str, home: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield what a configuration includes, and what that does in turn: path and content, each once.

    `file`: the configuration's own path, from which relative ones count (git-config(1), Includes). Conditions are
    taken for true: on which branch or by which name git will be called isn't known.
    """
    seen, size = {file}, 0
    pending = [(file, config)]
    while pending:
        file, config = pending.pop(0)
        for word in _include_paths(config):
            place = f"{home}{word[1:]}" if home and word.startswith("~/") else os.path.expanduser(word)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file), place))
            if path in seen or len(seen) > MAX_INCLUDED or size > MAX_INCLUDED_BYTES or "\0" in path:
                continue
            seen.add(path)
            found = read(path)
            size += len(found)
            yield path, found
            pending.append((path, found))


def _include_paths(config: bytes) -> Iterator[str]:
    section = ""
    for line in os.fsdecode(config[:MAX_CONFIG]).replace("\\\r\n", "").replace("\\\n", "").split("\n"):
        text = line.strip()
        if header := _HEADER.match(text):
            section, text = header[1].lower(), text[header.end() :]
        key, _, value = text.partition("=")
        if section in ("include", "includeif") and key.strip().lower() == "path" and (path := _unquoted(value)):
            yield path


def _unquoted(value: str) -> str:
    """Return a value as git reads it: quotes and escapes taken away, and a comment at its end."""
    parts: list[str] = []
    for part in _PART.finditer(value.strip()):
        if part[3]:
            parts = ["".join(parts).rstrip()]
            break
        parts.append(re.sub(r"\\(.)", r"\1", part[1] if part[1] is not None else part[2]))
    return "".join(parts)


def into(word: str, places: Collection[str], home: str = "") -> str | None:
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
