"""Text on its way to a host: UTF-8, in which `\\udc80` to `\\udcff` stand for bytes that were none (PEP 383)."""

from __future__ import annotations

from typing import Any

from opsexec.errors import BadStep
from opsexec.secret import Secret


def as_bytes(text: str) -> bytes:
    """Return text as the host gets it; raises BadStep for another lone surrogate, which stands for nothing."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        # `from None`: Python's own error holds the whole text, which may be a secret.
        text = f"U+{ord(error.object[error.start]):04X} at character {error.start} is no character"
        raise BadStep(text, hint="give the character itself, or bytes") from None


def require_text(name: str, value: Any) -> None:
    """Raise BadStep, naming the field, unless every text in its value can be sent."""
    if isinstance(value, Secret):
        value = value.reveal()
    if isinstance(value, str):
        if not value.isascii():
            try:
                as_bytes(value)
            except BadStep as error:
                raise BadStep(f"{name}: {error.message}", hint=error.hint) from None
    elif isinstance(value, (tuple, list)):
        for each in value:
            require_text(name, each)
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            require_text(name, each)
