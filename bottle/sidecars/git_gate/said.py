"""What the gate says: one JSON line an event, on stdout, which the bundle's supervisor forwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def say(event: Mapping[str, Any]) -> None:
    """Say one line. Everything outside ASCII is escaped, so that no name can break it or paint over a terminal."""
    sys.stdout.write(json.dumps(event, ensure_ascii=True, default=str) + "\n")
    sys.stdout.flush()


class SaidAudit:
    """An AuditSink that says each record: the chain is kept outside the bundle."""

    def append(self, record: Mapping[str, Any]) -> object:
        """Say a record before anyone acts on it."""
        say({"event": "step", "daemon": "git-gate", "record": record})
        return None
