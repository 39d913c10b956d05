"""Errors as they travel in ERROR frames: their code, sentence and hint, and what their kind holds beside."""

from __future__ import annotations

from typing import Any

import msgspec

from opsexec import errors
from opsexec.errors import CapabilityDenied, HostKeyRejected, OpsError, ProtocolError

MAX_TEXT = 16 << 10


class WireError(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an ERROR frame holds. `needed`, `held`, `layer`, `reason`: of a denial."""

    code: str
    message: str
    hint: str | None = None
    needed: str | None = None
    held: tuple[str, ...] = ()
    layer: str | None = None
    reason: str | None = None


_decoder = msgspec.msgpack.Decoder(WireError)


def _family(kind: type[OpsError]) -> dict[str, type[OpsError]]:
    found = {kind.code: kind}
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            found.update(_family(each))
    return found


_BY_CODE = _family(OpsError)
_KINDS: dict[type, str] = {kind: code for code, kind in _BY_CODE.items()}


def pack_error(error: OpsError) -> WireError:
    """Return an error as it travels; its host is left out, since the receiver knows it by its own name."""
    fields: dict[str, Any] = {"code": _code(error), "message": _text(error.message), "hint": _text(error.hint)}
    if isinstance(error, CapabilityDenied):
        fields |= {
            "needed": _text(error.needed),
            "held": tuple(str(_text(each)) for each in error.held[:64]),
            "layer": error.layer,
            "reason": _text(error.reason),
        }
    return WireError(**fields)


def _code(error: OpsError) -> str:
    """Return the code of the error, or of the nearest kind above it that every receiver knows."""
    return next(_KINDS[kind] for kind in type(error).__mro__ if kind in _KINDS)


def _text(text: str | None) -> str | None:
    """Return text that can travel: bounded, and without lone surrogates (bytes that were no UTF-8)."""
    return None if text is None else text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()


def decode_error(data: bytes, host: str) -> OpsError:
    """Return the error that an ERROR frame holds, or the ProtocolError that it is none."""
    try:
        wire = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return ProtocolError(f"not an error frame: {error}", host=host)
    return as_error(wire, host)


def as_error(wire: WireError, host: str) -> OpsError:
    """Return the error of its own family; a code that is not known here becomes a ProtocolError that shows it."""
    kind = _BY_CODE.get(wire.code)
    if kind is None or issubclass(kind, HostKeyRejected):
        return ProtocolError(f"{wire.code[:40]}: {wire.message}", host=host, hint=wire.hint)
    if issubclass(kind, CapabilityDenied):
        return CapabilityDenied(
            wire.needed or wire.message, wire.held, host=host, layer=wire.layer or "agent", reason=wire.reason
        )
    return kind(wire.message, host=host, hint=wire.hint)
