"""This process's own three streams: one that whoever started it had closed is a stream that holds nothing."""

from __future__ import annotations

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def stand_in() -> None:
    """Open each stream that is closed on nothing: no file of ours gets its number, and nobody meets None."""
    for number, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 -- it is the process's
