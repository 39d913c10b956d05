"""Bars of text: a plot that a terminal and a README both show."""

from __future__ import annotations

from collections.abc import Mapping

WIDTH = 40


def bars(values: Mapping[str, float], unit: str) -> str:
    """One line a value: its name, a bar as long as its share of the largest, the number."""
    largest = max(values.values(), default=0.0) or 1.0
    label = max((len(name) for name in values), default=0)
    return "\n".join(
        f"{name:>{label}}  {'█' * max(1, round(WIDTH * value / largest))} {value:.3g} {unit}"
        for name, value in values.items()
    )
