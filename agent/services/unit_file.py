"""Unit files as text (systemd.syntax(7)): sections, continued lines, lists that an empty value resets."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """One assignment; `line` is 1-based, where it begins."""

    section: str
    key: str
    value: str
    path: str
    line: int


class UnitText(msgspec.Struct, frozen=True):
    """One file of a unit: its settings, and the lines that are none. `binary`: it holds NUL or isn't UTF-8."""

    path: str
    settings: tuple[Setting, ...]
    odd: tuple[tuple[int, str], ...] = ()
    binary: bool = False


def parse_unit(data: bytes, path: str) -> UnitText:
    """Parse one file; nothing in it is an error here, what is no setting is listed in `odd`."""
    binary = b"\0" in data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text, binary = data.decode("utf-8", "replace"), True
    settings: list[Setting] = []
    odd: list[tuple[int, str]] = []
    section = ""
    for number, line in _logical(text):
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            section = bare[1:-1]
            continue
        key, equals, value = bare.partition("=")
        key = key.strip()
        if not equals or not key or not section:
            odd.append((number, bare[:200]))
            continue
        settings.append(Setting(section, key, value.strip(), path, number))
    return UnitText(path, tuple(settings), tuple(odd[:100]), binary)


def _logical(text: str) -> Iterable[tuple[int, str]]:
    """Yield lines with their continuations joined by a space; comments, also those between, are left out."""
    held: list[str] = []
    begin = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if line.lstrip()[:1] in ("#", ";"):
            continue
        if not held:
            begin = number
        if line.endswith("\\"):
            held.append(line[:-1])
            continue
        whole = " ".join((*held, line))
        held = []
        if whole.strip():
            yield begin, whole
    if held and " ".join(held).strip():
        yield begin, " ".join(held)


class Unit:
    """The files of one unit as one: later files win, and an empty value empties a list."""

    def __init__(self, files: Iterable[UnitText]) -> None:
        self.files = tuple(files)
        self._by_key: dict[tuple[str, str], list[Setting]] = {}
        for file in self.files:
            for setting in file.settings:
                found = self._by_key.setdefault((setting.section, setting.key), [])
                if not setting.value:
                    found.clear()
                else:
                    found.append(setting)

    def all(self, section: str, key: str) -> list[Setting]:
        """Return the settings of a list that count."""
        return self._by_key.get((section, key), [])

    def last(self, section: str, key: str) -> Setting | None:
        """Return the setting that counts; None when there is none."""
        found = self.all(section, key)
        return found[-1] if found else None

    def value(self, section: str, key: str, default: str = "") -> str:
        """Return the value that counts."""
        found = self.last(section, key)
        return default if found is None else found.value

    def commands(self) -> list[Setting]:
        """Return every command line the unit may run (Exec* of any section)."""
        return [each for (_, key), found in self._by_key.items() if key.startswith("Exec") for each in found]
