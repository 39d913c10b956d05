"""README's picture of the demo is drawn from the recording beside it, and from nothing else."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.parts.attacks import ROOT


def drawing() -> ModuleType:
    """scripts/draw_demo.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_demo", ROOT / "scripts" / "draw_demo.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def test_the_picture_is_the_recording_s() -> None:
    module = drawing()
    assert module.PICTURE.read_text() == module.draw(module.lines_of(module.CAST))


def test_the_picture_says_that_each_claim_was_observed() -> None:
    module = drawing()
    found = module.claims(module.shown(module.PICTURE))
    assert len(found) >= 22
    assert not [claim for claim in found if claim.startswith("NO")]


def test_the_picture_is_shown_where_the_demo_is_described() -> None:
    assert "](docs/bottle-demo.svg)" in (ROOT / "README.md").read_text()
