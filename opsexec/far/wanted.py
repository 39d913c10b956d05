"""Whether an operation's answer is still wanted: one that takes long leaves off between two steps of it when it isn't.

Where operations are done in threads nobody else can end them. In a session each is a process, which is ended instead.
"""

from __future__ import annotations

from _thread import _local  # the class behind `threading.local`, which costs 2 ms to load

from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class _Asker(_local):
    is_gone = None  # type: Callable[[], bool] | None


_ASKER = _Asker()


def ask_for(is_gone: Callable[[], bool] | None) -> None:
    """Say, for this thread, how to tell that whoever asked for what it does has gone; None: they don't go."""
    _ASKER.is_gone = is_gone


def require_wanted() -> None:
    """Raise FarError `unwanted` when whoever asked for this has gone."""
    if _ASKER.is_gone is not None and _ASKER.is_gone():
        raise FarError("unwanted", "whoever asked for it has gone")
