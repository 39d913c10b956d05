"""The attacks of docs/attacks.md, and which of them a test shows where: told by its name, its parameter or a mark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "attacks.md"
PLACES = ("bwrap", "docker", "alone")
"""Where an attack is shown: in a real bottle on a backend, or at the part by itself."""

_ID = re.compile(r"(?:DN|IP|NB|PX|PA|CR|DL|GI|WS|MF|ES|SV|LG|LC)[0-9]+\Z")
_ROW = re.compile(r"\| ([A-Z]{2}[0-9]+) \| (.+) \| (.+) \| ([a-z ]+) \|\Z")
_UNSHOWN = re.compile(r"\| ([A-Z]{2}[0-9]+) \| (bwrap|docker|alone) \| (.+) \|\Z")
_NAMED_FILE = re.compile(r"test_(bottle|git_gate)[a-z_0-9]*\.py\Z")


@dataclass(frozen=True)
class Attack:
    """One line of the list. `where`: the places that owe a test, or a reason why there is none."""

    id: str
    tried: str
    wanted: str
    where: tuple[str, ...]


@cache
def attacks(document: Path = DOCUMENT) -> dict[str, Attack]:
    """Read the list, in its order."""
    found: dict[str, Attack] = {}
    for line in document.read_text("utf-8").splitlines():
        row = _ROW.match(line)
        if row and row[1] not in found and set(row[4].split()) <= set(PLACES):
            found[row[1]] = Attack(row[1], row[2], row[3], tuple(row[4].split()))
    return found


def unshown(document: Path = DOCUMENT) -> dict[tuple[str, str], str]:
    """Read the stated reasons: (id, place) -> why no test shows it there."""
    rows = filter(None, map(_UNSHOWN.match, document.read_text("utf-8").splitlines()))
    return {(row[1], row[2]): row[3] for row in rows}


def shown_by(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Return each (attack, place) that a test is about; raises UsageError for a mark that names none there is."""
    known = attacks()
    marks = list(item.iter_markers("attack"))
    place = next((mark.kwargs["backend"] for mark in marks if "backend" in mark.kwargs), None) or _place(item)
    ids = [each for mark in marks for each in mark.args]
    if _NAMED_FILE.match(item.path.name):
        ids += [word for word in _words(item) if _ID.match(word) and word in known]
    for each in dict.fromkeys(ids):
        if each not in known or place not in PLACES:
            raise pytest.UsageError(f"{item.nodeid}: there is no attack {each!r} on {place!r} in {DOCUMENT.name}")
        yield each, place


def _words(item: pytest.Item) -> list[str]:
    """Return what may be an id in a test's name: of the function in lower case, of the parameter as it stands."""
    function, _, parameter = item.name.partition("[")
    return [*function.upper().split("_"), *re.split(r"[^A-Za-z0-9]", parameter)]


def _place(item: pytest.Item) -> str:
    """Return where a test runs when no mark says so: by its parameter, then by its file."""
    callspec = getattr(item, "callspec", None)  # there is one where a test has parameters
    given = set() if callspec is None else set(map(str, callspec.params.values()))
    for backend in ("docker", "bwrap"):
        if backend in given or backend in re.split(r"[^a-z]", item.name):
            return backend
    if "docker" in item.path.name:
        return "docker"
    alone = item.path.parent.name == "unit" or item.path.name.startswith("test_git_gate")
    return "alone" if alone else "bwrap"
