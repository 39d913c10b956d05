"""The real parts that attacks run against are those of the integration tests."""

from __future__ import annotations

from tests.integration.conftest import *  # noqa: F403  # fixtures are found by name, and each new one belongs here too
from tests.parts.lone_gate import gate, upstream, whole_gate  # noqa: F401  # fixtures are found by name
