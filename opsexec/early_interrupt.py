"""Ctrl-C before a program of ours knows what it is to do: it ends as any other does, at once and without a word."""

from __future__ import annotations

import signal

_silent = False


def silent() -> None:
    """From here on SIGINT ends this process, also while modules are loaded; one that is ignored stays so."""
    global _silent
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _silent = True


def told() -> None:
    """From here on SIGINT is KeyboardInterrupt again: there is somebody to catch it."""
    global _silent
    if _silent:
        _silent = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
