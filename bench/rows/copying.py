"""Push and pull beside `rsync -a -e ssh`: many small files, nothing to do, one big file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import Entrant
from bench.rig import OURS, Rig, as_job
from bench.verdict import Claim, Row

NAME = "copy"
TITLE = "push and pull: 1000 x 4 KB / unchanged / 200 MB"
LIMITS = {"1000 x 4 KB": 1.15, "unchanged": 1.5, "200 MB": 1.2}


def run(rig: Rig) -> Row:
    """Seconds; opsexec over the connection it holds already, rsync with the login it needs."""
    row = Row(NAME, TITLE)
    many, big = rig.scratch / "many", rig.scratch / "big"
    make_files(many, rig.size(1000, 100), 4096)
    make_files(big, 1, rig.size(200, 20) << 20)
    with rig.host() as server:
        host = as_job(server.endpoint())
        for case, source in (("1000 x 4 KB", many), ("unchanged", many), ("200 MB", big)):
            for direction in ("push", "pull"):
                field = rig.race(entrants(rig, host, source, direction, fresh=case != "unchanged"))
                row.take(field, "seconds", f"{direction} {case}")
                row.claims.append(
                    Claim(f"{direction} {case} vs rsync", field.median(OURS, "seconds"),
                          field.median("rsync", "seconds"), LIMITS[case], "s")
                )  # fmt: skip
    return row


def entrants(rig: Rig, host: dict[str, Any], source: Path, direction: str, *, fresh: bool) -> list[Entrant]:
    """Both contestants, each with a destination of its own that is made ready before each run."""
    found = []
    for name in (OURS, "rsync"):
        target = rig.scratch / f"copy-{name}-{direction}"
        script = "with_opsexec.py" if name == OURS else "with_rsync.py"
        job = {
            "work": "copy",
            "hosts": [host],
            "direction": direction,
            "src": f"{source}/",
            "dst": f"{target}/",
        }
        ready = _emptied(target) if fresh else _copied(source, target)
        found.append(Entrant(name, script, job, python="ours" if name == OURS else "peers", before=ready))
    return found


def make_files(directory: Path, count: int, size: int) -> None:
    """Files of random bytes, 50 a folder."""
    for number in range(count):
        folder = directory / f"{number // 50:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}.bin").write_bytes(os.urandom(size))


def _emptied(target: Path) -> Callable[[], None]:
    def ready() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    return ready


def _copied(source: Path, target: Path) -> Callable[[], None]:
    def ready() -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=shutil.copy2)

    return ready
