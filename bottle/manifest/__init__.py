"""Manifests: files (or a JSON-shaped object) -> validated bottles and agents.

Read `model` for what may be said, `store` for where it is read from and who is trusted, `extends` for how bottles build
on each other.
"""

from __future__ import annotations

from bottle.manifest.kinds import Agent, Bottle
from bottle.manifest.store import Manifests, load_directories, load_object

__all__ = ["Agent", "Bottle", "Manifests", "load_directories", "load_object"]
