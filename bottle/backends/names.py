"""The backends' names, apart from what they are made of: `bottle --help` needs no more."""

from __future__ import annotations

from typing import Literal

Backend = Literal["bwrap", "docker", "smolmachines"]
BACKENDS: tuple[Backend, ...] = ("bwrap", "docker", "smolmachines")
