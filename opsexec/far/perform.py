"""Doing one operation and wording its answer or its failure for the way back."""

from __future__ import annotations

import os

from opsexec.far.message import FarError, pack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def perform(items: list[bytes]) -> bytes:
    """Do `[operation, argument...]`; returns b"a" + its answer, or b"f" + [code, text, details...], as messages."""
    try:
        if not items:
            raise FarError("protocol", "a call names no operation")
        return b"a" + pack_message(operation(os.fsdecode(items[0]))(items[1:]))
    except FarError as error:
        return failure(error)
    except OSError as error:
        return failure(FarError("os", os.strerror(error.errno or 0), str(error.errno), str(error.filename or "")))
    except ValueError as error:
        return failure(FarError("protocol", str(error)))


def operation(name: str) -> Callable[[list[bytes]], list[bytes]]:
    """Return the operation of that name; raises FarError when there is none."""
    from opsexec.far.operations import OPERATIONS

    if name not in OPERATIONS:
        raise FarError("protocol", "no such operation: " + name)
    return OPERATIONS[name]


def failure(error: FarError) -> bytes:
    """Return a failure's wire form."""
    texts = (error.code, error.text, *error.details)
    return b"f" + pack_message([os.fsencode(text) for text in texts])
