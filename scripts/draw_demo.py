"""Draws docs/bottle-demo.svg from docs/bottle-demo.cast, a recording of `bottle demo`; with --record it records first.

The picture is the recording's last screen, whole: a line of it a line of output, behind the second in which it came.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from opsexec.recording import Recording, read_recording

ROOT = Path(__file__).resolve().parent.parent
CAST = ROOT / "docs" / "bottle-demo.cast"
PICTURE = ROOT / "docs" / "bottle-demo.svg"
COLUMNS = 116
LINE, LETTER, MARGIN, GUTTER = 17, 7.8, 14, 56
COLOURS = {
    "yes ": "#8bd49c",
    "NO ": "#ff7b72",
    "  egress: deny": "#ffa657",
    "  git gate: deny": "#ffa657",
    "  agent:": "#79c0ff",
}
PLAIN, FAINT = "#c9d1d9", "#6e7681"


def record() -> int:
    """Run the demo on a terminal of its own and record it; returns its exit status."""
    CAST.unlink(missing_ok=True)
    recording = Recording.create(
        CAST, columns=COLUMNS, rows=80, term="xterm", title="bottle demo", command="bottle demo"
    )
    ours, theirs = pty.openpty()
    demo = subprocess.Popen([sys.executable, "-m", "bottle", "demo"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed: it ended
            break
        sys.stdout.buffer.write(data)
        recording.output(data)
    os.close(ours)
    recording.ended(demo.wait())
    recording.close()
    CAST.chmod(0o644)
    return demo.returncode


def lines_of(recording: Path) -> list[tuple[float, str]]:
    """Return each line of what was shown, and when its first character came, in seconds."""
    _, events = read_recording(recording)
    now, begun, text = 0.0, 0.0, ""
    found: list[tuple[float, str]] = []
    for event in events:
        now += event.interval_s
        if event.code != "o":
            continue
        for character in event.text.replace("\r\n", "\n"):
            begun = begun if text else now
            if character == "\n":
                found.append((begun if text else now, text))
                text = ""
            else:
                text += character
    return [*found, (begun, text)] if text else found


def claims(text: str) -> list[str]:
    """Return the claims that a picture, or the demo's output, says were observed or not, in their order."""
    return [line for line in text.splitlines() if line.startswith(("yes  ", "NO  "))]


def shown(picture: Path) -> str:
    """Return the text of a picture."""
    from xml.etree import ElementTree

    rows = ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    return "\n".join("".join(row.itertext()) for row in rows if row.get("class") == "o")


def draw(lines: list[tuple[float, str]]) -> str:
    """Return the picture."""
    width, height = int(GUTTER + COLUMNS * LETTER + 2 * MARGIN), (len(lines) + 1) * LINE + 2 * MARGIN
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" xml:space="preserve">',
        "<style>text{font:13px ui-monospace,Menlo,Consolas,monospace;white-space:pre}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 12}" fill="{FAINT}">$ bottle demo</text>',
    ]
    for number, (at, line) in enumerate(lines, 1):
        y = MARGIN + 12 + number * LINE
        colour = next((found for head, found in COLOURS.items() if line.startswith(head)), PLAIN)
        cut = line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "\u2026"
        if cut.strip():
            rows.append(f'<text x="{MARGIN}" y="{y}" fill="{FAINT}">{at:4.1f} s</text>')
            rows.append(f'<text class="o" x="{MARGIN + GUTTER}" y="{y}" fill="{colour}">{escape(cut)}</text>')
    return "\n".join([*rows, "</svg>"]) + "\n"


def main(words: list[str]) -> int:
    """Draw, or with --record record and draw; returns 1 where the demo didn't observe what it claims."""
    if words == ["--record"] and record() != 0:
        print("the demo didn't observe all it claims, so it is no picture of it", file=sys.stderr)
        return 1
    PICTURE.write_text(draw(lines_of(CAST)), "utf-8")
    print(f"docs: {PICTURE.relative_to(ROOT)} drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
