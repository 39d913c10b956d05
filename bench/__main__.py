"""`python -m bench`: measure, print, write bench/results/ and the README's table."""

from __future__ import annotations

import argparse
import signal
import sys

from bench import peers, report
from bench.rig import opsexec_can_run, rig
from bench.rows import BY_NAME, ROWS
from bench.verdict import Row

#: Medians of fewer rounds stay out of the README.
FULL_ROUNDS = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="opsexec beside its peers, in turns on one machine: ratios are held against limits.",
        epilog="examples: python -m bench --quick; python -m bench --only ssh-100 --rounds 9",
    )
    made.add_argument("--only", action="append", metavar="ROW", help="only this row (may be repeated)")
    made.add_argument("--quick", action="store_true", help="one small round of each: does everything work?")
    made.add_argument("--rounds", type=int, help="rounds of each contest instead of the row's own number")
    made.add_argument("--list", action="store_true", help="name the rows and end")
    made.add_argument("--readme", action="store_true", help="only write the README's table from results that are there")
    return made


def main() -> int:
    """Run; the exit status is 0 measured (also with missed limits), 2 usage, 3 could not run."""
    # A parent may have left SIGINT ignored, and contestants that are to be interrupted would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = parser().parse_args()
    names = [module.NAME for module in ROWS]
    if options.list:
        for module in ROWS:
            print(f"{module.NAME:12}  {module.TITLE}")
        return 0
    if options.readme:
        return 0 if report.write_readme(names) else 3
    unknown = [name for name in options.only or [] if name not in BY_NAME]
    if unknown:
        print(f"bench: no row {unknown[0]!r}; --list names them", file=sys.stderr)
        return 2
    peers.ensure_venv()
    if not opsexec_can_run():
        print("bench: opsexec has no executors here; only the peers are measured", file=sys.stderr)
    full = not options.quick and (options.rounds is None or options.rounds >= FULL_ROUNDS)
    done: list[Row] = []
    try:
        with rig(quick=options.quick, rounds=options.rounds) as tools:
            for name in options.only or names:
                print(f"{name}: {BY_NAME[name].TITLE}", file=sys.stderr)
                row: Row = BY_NAME[name].run(tools)
                print(report.plain(row), flush=True)
                done.append(row)
    finally:
        # Rows take minutes each: what was measured is kept when a later one fails or is interrupted.
        if done:
            keep(done, names, full=full)
    return 0


def keep(done: list[Row], names: list[str], *, full: bool) -> None:
    """Write the results file and, after a full run, the README's table; say how it went."""
    print(f"\nresults: {report.write_json(done, full=full).relative_to(peers.ROOT)}")
    if not full:
        print("a small run: its verdicts say little, and the README's table stays as it is")
    elif report.write_readme(names):
        print("README.md: table written")
    claims = [claim for row in done for claim in row.claims]
    missed = sum(claim.verdict == "MISS" for claim in claims)
    print(f"claims: {len(claims)}, missed: {missed}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
