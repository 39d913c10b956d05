"""What a doctor loads before it looks: half a second for a whole host leaves no room for what it doesn't need."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from agent.services.check import checks
from agent.services.doctor import examine
assert checks()
print(*sorted({"pydantic", "rich", "aiohttp", "asyncssh"} & set(sys.modules)))
"""


def test_all_checks_are_loaded_without_what_only_declarations_and_connections_need():
    argv = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
