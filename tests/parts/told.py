"""How every program of this project says what was wrong with its command line."""

from __future__ import annotations


def is_sentence_and_hint(program: str, err: str) -> bool:
    """Whether stderr holds a sentence of that program's, a hint below it, and nothing else."""
    lines = err.splitlines()
    return len(lines) == 2 and lines[0].startswith(f"{program}: ") and lines[1].startswith("  hint: ")
