"""`Secret`: a value that travels to the host that needs it and shows as `***` everywhere else."""

from __future__ import annotations

import msgspec

MASK = "***"


class Secret(msgspec.Struct, frozen=True, tag="secret", repr_omit_defaults=True):
    """A secret text. `reveal()` is the only way to its value; repr, str, format, logs and audit show `***`."""

    value: str

    def reveal(self) -> str:
        """Return the value; call it only where it is put on the wire."""
        return self.value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("value", MASK)]


def reveal(value: str | Secret) -> str:
    """Return the text of a value that may be a Secret."""
    return value.value if isinstance(value, Secret) else value
