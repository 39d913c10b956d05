"""Masks the values of known secrets in what is kept or shown: journal, report, progress, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opsexec.secret import MASK

MIN_LINE = 6
"""A line of a multi-line secret is masked on its own from this many characters on.

Shorter ones say little.
"""

MIN_HELD = 4
"""Characters from which on a secret that is found in another text is taken for itself."""


MIN_NAMED = 8
"""Characters from which on a secret is masked in the name of a member: a shorter one may be a field's name by chance.

A field that lost its name couldn't be read after a resume.
"""


class Masker:
    """Replaces each known secret value by `***`.

    What a program made of a secret (a hash, base64) it can't know.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Mask this value from now on, its lines too, and as it stands without surrounding white space."""
        forms = {
            value,
            value.strip(),
            *(line.strip() for line in value.splitlines() if len(line.strip()) >= MIN_LINE),
        }
        self._values = sorted({*self._values, *filter(None, forms)}, key=lambda v: (-len(v), v))

    def holds(self, text: str) -> bool:
        """True when a known secret of some length stands in the text: a shorter one stands anywhere by chance."""
        return any(len(value) >= MIN_HELD and value in text for value in self._values)

    def text(self, text: str, *, cut: bool = False) -> str:
        """Return the text masked. `cut`: its beginning was cut off, maybe inside a secret."""
        for value in self._values:
            if cut:
                text = _without_cut_head(text, value)
            text = text.replace(value, MASK)
        return text

    def data(self, value: Any) -> Any:
        """Return JSON data with every text in it masked.

        The names of its own members stay; those of what they hold (labels, say) may be a host's words.
        """
        if isinstance(value, Mapping) and self._values:
            return {str(key): self._inner(each) for key, each in value.items()}
        return self._inner(value)

    def _inner(self, value: Any) -> Any:
        if not self._values:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._name(str(key)): self._inner(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._inner(each) for each in value]
        return value

    def _name(self, name: str) -> str:
        for value in self._values:
            if len(value) >= MIN_NAMED:
                name = name.replace(value, MASK)
        return name


def _without_cut_head(text: str, value: str) -> str:
    """Mask what is left of a secret at the start of a text whose head was cut off."""
    for length in range(min(len(value) - 1, len(text)), 2, -1):
        if text.startswith(value[-length:]):
            return MASK + text[length:]
    return text
