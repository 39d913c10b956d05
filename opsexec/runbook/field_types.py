"""The types that a runbook's fields have, and what stands behind each of its step keys."""

from __future__ import annotations

from typing import Literal, NamedTuple

from opsexec.steps.base import Step

FieldType = Literal[
    "text", "local", "secret", "script", "words", "bool", "int", "number", "environment", "texts", "ints", "networks",
    "files",
]  # fmt: skip
"""text: interpolated, never a Secret. local: the same, a path on the caller. secret: may be a Secret.
script: as it stands. words: a list of texts. environment: names to texts that may be Secrets. texts: names to texts
that may not. ints: names to whole numbers. networks: a list of names, or of `{network, ipv4, aliases}`.
files: paths to their content, which may be a Secret, or to `{content, mode}`."""

MAY_BE_SECRET = frozenset({"secret", "environment", "files"})
"""The types that may hold Secrets."""

NETWORK_KEYS = ("network", "ipv4", "aliases")
FILE_KEYS = ("content", "mode")


class Key(NamedTuple):
    """One step key of the YAML: the Step it makes, and the field that a bare value or list stands for."""

    step: type[Step]
    shorthand: str | None
    sentence: str
