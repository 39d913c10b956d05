"""Claims and what was observed: a claim is printed as seen only when the two are equal."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

WIDTH = 118


class Claim(NamedTuple):
    """One sentence, what it takes for it to be true, and what was there."""

    text: str
    wanted: object
    observed: object

    @property
    def seen(self) -> bool:
        """True when what was observed is what the claim takes."""
        return type(self.observed) is type(self.wanted) and self.observed == self.wanted


class Ledger:
    """Every claim of a demo, in order; prints each as it is made."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def observe(self, text: str, observed: object, wanted: object) -> bool:
        """Make a claim from an observation; returns whether it holds."""
        claim = Claim(text, wanted, observed)
        self.claims.append(claim)
        mark = "seen" if claim.seen else "NOT SEEN"
        print("\n".join(textwrap.wrap(f"[{mark}] {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")))
        if not claim.seen:
            print(f"      wanted {wanted!r}\n      observed {observed!r}", flush=True)
        return claim.seen

    @property
    def ok(self) -> bool:
        """True when there are claims, and every one was seen."""
        return bool(self.claims) and all(claim.seen for claim in self.claims)

    def summary(self) -> str:
        """Return the table of all claims."""
        lines = [f"{'#':>3}  {'observed':<9} claim", f"{'-' * 3}  {'-' * 9} {'-' * 60}"]
        for number, claim in enumerate(self.claims, 1):
            first, *rest = textwrap.wrap(claim.text, WIDTH - 15)
            lines.append(f"{number:>3}  {'yes' if claim.seen else 'NO':<9} {first}")
            lines += [" " * 15 + line for line in rest]
        seen = sum(claim.seen for claim in self.claims)
        return "\n".join([*lines, "", f"{seen} of {len(self.claims)} claims were observed"])
