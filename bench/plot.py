"""Two plots without a library: bars of text for a terminal, and a curve as SVG for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH = 40
COLOURS = ("#0969da", "#bf8700", "#8250df", "#cf222e")

Points = Sequence[tuple[float, float]]


def bars(values: Mapping[str, float], unit: str) -> str:
    """One line a value: its name, a bar as long as its share of the largest, the number."""
    largest = max(values.values(), default=0.0) or 1.0
    label = max((len(name) for name in values), default=0)
    return "\n".join(
        f"{name:>{label}}  {'█' * max(1, round(WIDTH * value / largest))} {value:.3g} {unit}"
        for name, value in values.items()
    )


def curves(title: str, across: str, lines: Mapping[str, Points]) -> str:
    """Lines through points as an SVG of 640 x 320, both axes linear and from zero; each point says its value."""
    left, top, width, height = 70.0, 40.0, 520.0, 220.0
    points = [point for line in lines.values() for point in line]
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    most_y = max((y for _, y in points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return round(left + width * x / most_x, 1), round(top + height * (1 - y / most_y), 1)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 320" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="320" fill="#ffffff"/>',
        f'<text x="{left}" y="22" font-size="14" fill="#1f2328">{escape(title)}</text>',
        f'<path d="M{left},{top} V{top + height} H{left + width}" fill="none" stroke="#59636e"/>',
        f'<text x="{left + width / 2}" y="300" text-anchor="middle" fill="#59636e">{escape(across)}</text>',
    ]
    for x in sorted({x for x, _ in points}):
        at, _ = place(x, 0)
        parts.append(f'<text x="{at}" y="{top + height + 18}" text-anchor="middle" fill="#59636e">{x:g}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in line]
        parts.append(
            f'<polyline points="{" ".join(f"{x},{y}" for x, y in placed)}" fill="none" stroke="{colour}"'
            ' stroke-width="2"/>'
        )
        for (x, y), (_, value) in zip(placed, line, strict=True):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"><title>{value:.3g}</title></circle>')
        x, y = placed[-1]
        parts.append(
            f'<text x="{x - 6}" y="{y - 8}" text-anchor="end" fill="{colour}">{escape(name)}: {line[-1][1]:.3g}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
