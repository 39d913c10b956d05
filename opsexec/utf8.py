"""Programs of ours speak UTF-8 in every locale: words, paths and streams, as what they write to hosts and files is."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def speak() -> None:
    """Begin this process again in Python's UTF-8 mode where its locale has another encoding; else do nothing.

    Bytes of its words, variables and file names that are no UTF-8 stay those bytes (PEP 383, PEP 540).
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    with suppress(OSError):  # the interpreter was replaced meanwhile: what is plain ASCII works all the same
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
