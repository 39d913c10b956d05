"""What commands print for programs."""

from __future__ import annotations

import json
from typing import Any


def print_json(data: dict[str, Any]) -> None:
    """Print one object, one line, in ASCII: no terminal is steered by it."""
    print(json.dumps(data, ensure_ascii=True))
