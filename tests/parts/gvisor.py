"""gVisor's runtime, built from scripts/runsc by scripts/runsc.sh, and how an engine of the tests' own is told of it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from tests.conftest import require

SCRIPT = Path(__file__).parents[2] / "scripts" / "runsc.sh"


@cache
def runsc() -> Path | None:
    """The program; None when it isn't built."""
    done = subprocess.run([str(SCRIPT), "--path"], check=False, capture_output=True, text=True, timeout=20)
    return Path(done.stdout.strip()) / "runsc" if done.returncode == 0 else None


def gvisor_options() -> list[str]:
    """The words for dockerd; skips, or fails under REQUIRE_ALL, where there is no runsc."""
    require(runsc() is not None, "needs runsc (scripts/runsc.sh, with Go)")
    return ["--add-runtime", f"runsc={runsc()}"]
