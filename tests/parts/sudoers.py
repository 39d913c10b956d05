"""A rule of sudo's for the time of a test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = Path("/etc/sudoers.d")


@contextlib.contextmanager
def sudo_rule(line: str) -> Iterator[None]:
    """`line` is in force for the block (needs root). It is checked first: a broken rule would lock sudo for all."""
    # sudoers(5): names that hold a dot are not read, so the draft is not in force yet.
    draft = DIRECTORY / f"opsexec-test-{os.getpid()}.draft"
    rule = draft.with_suffix("")
    draft.write_text(f"{line}\n")
    draft.chmod(0o440)
    try:
        subprocess.run(["visudo", "-c", "-q", "-f", str(draft)], check=True, capture_output=True)
        draft.rename(rule)
        yield
    finally:
        draft.unlink(missing_ok=True)
        rule.unlink(missing_ok=True)
