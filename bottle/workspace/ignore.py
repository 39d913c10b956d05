"""Which new files are a build's and not the agent's work: by the ignore rules that the directory came with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pathspec

from bottle.workspace.tree import Tree

MAX_RULES = 256 << 10
NAMES = (".gitignore", ".git/info/exclude")


def rules_of(base: Tree, read: Callable[[str], bytes]) -> Callable[[str, bool], bool]:
    """Return what says of a path (and whether it is a directory) that git would ignore it, were it new.

    The rules are those of the state at start, never the agent's: it can't hide a file by a rule of its own. `read`
    gives a file's content there. gitignore(5): the last matching rule of the nearest directory decides.
    """
    specs: dict[str, pathspec.GitIgnoreSpec] = {}
    for path, entry in base.entries.items():
        name = path.rpartition("/")[2]
        if entry.kind == "file" and entry.size <= MAX_RULES and (name == NAMES[0] or path == NAMES[1]):
            directory = "" if path == NAMES[1] else path.rpartition("/")[0]
            lines = read(path).decode("utf-8", "replace").splitlines()
            found = _spec(lines)
            if found is not None and not (path == NAMES[1] and "" in specs):
                specs[directory] = found

    def ignored(path: str, directory: bool) -> bool:
        return _decide(specs, path, directory)

    return ignored


def _spec(lines: Iterable[str]) -> pathspec.GitIgnoreSpec | None:
    good = []
    for line in lines:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except ValueError:  # git leaves out a rule that is none, too
            continue
        good.append(line)
    return pathspec.GitIgnoreSpec.from_lines(good) if good else None


def _decide(specs: dict[str, pathspec.GitIgnoreSpec], path: str, directory: bool) -> bool:
    asked = path + "/" if directory else path
    at = path
    while True:
        at = at.rpartition("/")[0] if at else ""
        spec = specs.get(at)
        if spec is not None:
            inside = asked[len(at) + 1 :] if at else asked
            answer = spec.check_file(inside).include
            if answer is not None:
                return bool(answer)
        if not at:
            return False


def local_reader(root: Path) -> Callable[[str], bytes]:
    """Return a reader of a copy on this machine that nobody else writes."""

    def read(path: str) -> bytes:
        return (root / path).read_bytes()

    return read
