"""Doing something as a plain user in a forked child, for tests that run as root."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from opsexec.far.message import FarError

PLAIN = 54321
"""A uid and gid that no account has."""


def as_user(work: Callable[[], Any], uid: int = PLAIN, gid: int = PLAIN) -> Any:
    """Return what `work` returns, or raise what it raises, when done by that user (needs root).

    The child may be unable to read this interpreter's own library, so `work` must not import anything new.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            result = ("done", work())
        except FarError as error:
            result = ("far", (error.code, error.text, *error.details))
        except BaseException as error:  # noqa: BLE001 -- carried to the parent, which raises it
            result = ("other", repr(error))
        os.close(reading)
        with os.fdopen(writing, "wb") as file:
            pickle.dump(result, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        how, value = pickle.load(file)  # noqa: S301 -- from our own child
    os.waitpid(child, 0)
    if how == "far":
        raise FarError(*value)
    assert how == "done", value
    return value
