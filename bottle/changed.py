"""What a bottle was when it was last shown, kept beside it, so that a resume can say what is another by now."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from bottle.plan import BottlePlan
from bottle.preflight import preflight

NAME = "shown.txt"
OF_ONE_START = ("plan ", "workspace ", "command ", "warning ")
"""Lines that differ between a start and a resume of the very same manifests."""


def document(plan: BottlePlan, skills: Sequence[str] = ()) -> list[str]:
    """Return a plan's summary, with digests of what it only names: values that manifests spell out, the prompt."""
    lines = [line for line in (*preflight(plan), *skills) if not line.startswith(OF_ONE_START)]
    for name, value in sorted(plan.env.items()):
        lines.append(f"{'env value':<13} {name} {value.kind} {_digest(value.text)}")
    for name, each in plan.repositories.items():
        lines.append(f"{'git key':<13} {name} {_digest(each.identity)} host {_digest(each.host_key or '')}")
    lines.append(f"{'prompt':<13} {_digest(plan.prompt)}")
    return lines


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def keep(directory: Path, lines: Sequence[str]) -> None:
    """Write down what was shown."""
    path = directory / NAME
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    path.chmod(0o600)


def differences(directory: Path, lines: Sequence[str]) -> list[str]:
    """Return the lines that went and came since, with their `-` and `+`; None was kept: nothing to tell."""
    try:
        before = (directory / NAME).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in difflib.ndiff(before, list(lines)) if line[:2] in ("- ", "+ ")]
