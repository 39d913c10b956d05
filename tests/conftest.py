"""What every test may rely on: the async backend, one hypothesis profile, and `require` for real parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.parts.attack_table import AttackTable

if TYPE_CHECKING:
    from tests.parts.bottle_engine import BottleEngine

# Wall-clock deadlines per example measure the machine, not the code; pytest-timeout bounds the whole test.
settings.register_profile("opsexec", deadline=None, print_blob=True)
settings.load_profile("opsexec")

# The programs under test buffer what they say, as they do for everybody: without this a failing last flush is unseen.
os.environ.pop("PYTHONUNBUFFERED", None)

# sshd and other daemons live here, and a plain user's PATH often lacks it.
SYSTEM_DIRS = "/usr/local/sbin:/usr/sbin:/sbin"


def pytest_configure(config: pytest.Config) -> None:
    """Tie tests to the attacks they show: tests/parts/attacks.py says how."""
    config.pluginmanager.register(AttackTable(config), "attack-table")


@pytest.fixture(scope="session")
def bottle_engine() -> Iterator[BottleEngine]:
    """A docker engine for bottles, in a network of its own."""
    from tests.parts.bottle_engine import bottle_engine as started

    with started() as engine:
        yield engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def require(part: str | Path | bool, reason: str) -> str:
    """Skip the calling test with `reason` when a real part is missing; fail instead when REQUIRE_ALL=1.

    `part` is a program's name (looked up in PATH and the system directories), a path that must exist, or the
    outcome of a probe. Returns the program's or the path's full name, and "" for a probe.
    """
    if isinstance(part, bool):
        found = "" if part else None
    elif isinstance(part, Path):
        found = str(part) if part.exists() else None
    else:
        found = shutil.which(part, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRS}")
    if found is None:
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"REQUIRE_ALL=1 and a part is missing: {reason}", pytrace=False)
        pytest.skip(reason)
    return found
