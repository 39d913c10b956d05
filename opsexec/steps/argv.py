"""The words of a program, as a Step may name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from opsexec.capability import program_candidates
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.text import as_bytes

MAX_ARGV_BYTES = 1 << 20
MAX_WORD_BYTES = 128 * 1024 - 1
"""The longest word execve(2) takes (MAX_ARG_STRLEN); a script is one word of its interpreter's argv."""


def checked_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the words; raises BadStep for none, one string, a Secret, NUL, or more than execve(2) takes."""
    if isinstance(argv, str):
        raise BadStep("argv is one string", hint="give a list of words, or use Shell")
    if not argv:
        raise BadStep("argv is empty", hint="name a program")
    for word in cast("tuple[object, ...]", argv):
        if isinstance(word, Secret):
            raise BadStep(
                "a Secret stands on an argv, where every user of the host can read it", hint="use env or stdin"
            )
        if not isinstance(word, str) or "\0" in word:
            raise BadStep(f"argv holds {repr(word)[:80]}, which is not a word", hint="words are text without NUL")
    sizes = [len(as_bytes(word)) for word in argv]
    if sum(sizes) > MAX_ARGV_BYTES or max(sizes) > MAX_WORD_BYTES:
        raise BadStep("argv is over 1 MiB, or a word over 128 KiB", hint="pass the data on stdin or in a file")
    program_candidates(argv[0])
    return tuple(argv)
