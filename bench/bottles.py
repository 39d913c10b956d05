"""`python -m bench.bottles`: the three measurements of bottles, one after the other, and README's table of them.

Each is a program of its own beside its floor in the same run; `--readme` only writes the table from what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from bench import bottle_egress, bottle_git, bottle_start
from bench.report import README, RESULTS

BEGIN, END = "<!-- bench-bottles:begin -->", "<!-- bench-bottles:end -->"
PARTS = {"start": bottle_start, "egress": bottle_egress, "git": bottle_git}
HEAD = ("bottles", "found", "floor", "ratio", "limit", "")
Cells = tuple[str, str, str, str, str, str]


def read() -> dict[str, dict[str, Any]]:
    """Return what was measured, by part; raises OSError where one never was."""
    found = {}
    for part in PARTS:
        found[part] = json.loads((RESULTS / "bottle" / f"{part}.json").read_text())
    return found


def rows(found: dict[str, dict[str, Any]]) -> Iterator[Cells]:
    """Yield the table's rows."""
    start, egress, git = found["start"], found["egress"], found["git"]
    seconds, verdict, limits = start["seconds"], start["verdict"], start["limits"]
    first = seconds["bwrap, first"]
    yield "start to first command, bubblewrap", f"{first} s", "-", "-", f"≤ {limits['bwrap']} s", verdict["bwrap"]
    raw, ratio = seconds["docker, raw API"], start["docker_vs_raw"]
    yield (
        "the same on Docker, beside the same containers by raw API", f"{seconds['docker, first']} s", f"{raw} s",
        f"{ratio}x", f"≤ {limits['docker_vs_raw']}x", verdict["docker"],
    )  # fmt: skip
    for which in ("bwrap", "docker"):
        again, before = seconds[f"{which}, second"], seconds[f"{which}, first"]
        yield (
            f"second start of the same bottle, {which}", f"{again} s", f"{before} s", f"{again / before:.2f}x", "< 1x",
            verdict[f"{which}, second is faster"],
        )  # fmt: skip
    for name, times in egress["vs_mitmdump"].items():
        kind, _, route = name.rpartition(" ")
        limit = f"≤ {egress['limit']}x" if name in egress["verdict"] else "-"
        ours, floor = egress["ms"][f"{kind} gate, {route}"], egress["ms"][f"{kind} mitmdump"]
        work = f"kept-alive {kind} through egress ({route}) vs bare mitmdump"
        yield work, f"{ours} ms", f"{floor} ms", f"{times}x", limit, egress["verdict"].get(name, "told")
    for name, beyond in git["beyond_gitleaks_start_ms"].items():
        yield (
            f"one commit, {name} mirror, beyond gitleaks' own start".replace("push, ", "").replace("push by", "by"),
            f"{git['ms'][name]} ms",
            f"{git['ms']['gitleaks start']} ms", f"+{beyond} ms", f"≤ +{git['limit_ms']} ms", git["verdict"][name],
        )  # fmt: skip
    held_by = {which: sum(each.values()) for which, each in start["bundle_memory_mib"].items()}
    told = ", ".join(f"{which} {size:.0f} MiB" for which, size in held_by.items())
    yield f"memory of a bundle without repositories: {told}", "", "", "", "", "told"


def section(found: dict[str, dict[str, Any]]) -> str:
    """Return the README's section."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows(found)]
    when = ", ".join(f"{part} {each['at'][:10]} (load {each['machine']['load']:.1f})" for part, each in found.items())
    return "\n".join((BEGIN, *lines, "", f"Medians; measured: {when}.", END))


def write_readme(found: dict[str, dict[str, Any]]) -> None:
    """Put the section in its place in the README."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    README.write_text(before + section(found) + rest.partition(END)[2])


def main() -> int:
    """Measure unless told not to, and write the table."""
    made = argparse.ArgumentParser(prog="python -m bench.bottles", description=__doc__)
    made.add_argument("--readme", action="store_true", help="write README's table again, without measuring")
    options = made.parse_args()
    if not options.readme:
        for part, module in PARTS.items():
            print(f"bench: bottles, {part}", file=sys.stderr, flush=True)
            sys.argv = [f"bench.bottle_{part}"]
            module.main()
    write_readme(read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
