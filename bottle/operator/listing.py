"""A proposal as a person reads it."""

from __future__ import annotations

from bottle.operator.shown import Shown
from bottle.preflight import shown as plain

WIDTH = 100
NARROWEST = 40
GOES_ON = "    | "
"""Begins what belongs to the line before."""


def lines(shown: Shown, now: float, width: int = WIDTH) -> list[str]:
    """Return a proposal as a person reads it. Nothing is left out or cut short, and no character hides or steers.

    Lines are broken here, at `width` columns and with a mark: were it up to the terminal, a long reason could go on
    as a line that looks like one of ours.
    """
    proposal = shown.proposal
    again = f", asked {proposal.times} times" if proposal.times > 1 else ""
    found = [
        f"{shown.token}  {shown.bottle}  {proposal.candidate.kind} {plain(shown.candidate.subject)}",
        f"  {_ago(now - proposal.asked_at)}{again}; the agent says: {plain(proposal.why)}",
        *(f"  {plain(line)}" for line in shown.difference),
        *(f"  ! {plain(risk)}" for risk in shown.risks),
    ]
    if shown.problem:
        found.append(f"  it can't be carried out: {plain(shown.problem)}")
    return [part for line in found for part in _broken(line, max(width, NARROWEST))]


def _broken(line: str, width: int) -> list[str]:
    """Return the line in parts that no terminal breaks: it may give two columns to any character but ASCII's."""
    parts, room = [""], width
    for each in line:
        columns = 1 if each.isascii() else 2
        if columns > room:
            parts.append(GOES_ON)
            room = width - len(GOES_ON)
        parts[-1] += each
        room -= columns
    return parts


def _ago(seconds: float) -> str:
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
