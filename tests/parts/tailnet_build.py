"""The tailnet's programs, built from scripts/tailnet by scripts/tailnet.sh."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "tailnet.sh"


@cache
def tailnet_programs() -> Path | None:
    """The directory that headscale, tailscale and tailscaled are in; None when they aren't built."""
    done = subprocess.run([str(SCRIPT), "--path"], check=False, capture_output=True, text=True, timeout=20)
    return Path(done.stdout.strip()) if done.returncode == 0 else None
