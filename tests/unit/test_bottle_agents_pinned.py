"""The agents' versions stand in one place: what scripts/agents.sh installs is what the images install."""

from __future__ import annotations

import json
import re

import pytest

from tests.parts.attacks import ROOT

PACKAGES = json.loads((ROOT / "scripts" / "agents" / "package.json").read_text())["dependencies"]
LOCK = json.loads((ROOT / "scripts" / "agents" / "package-lock.json").read_text())


@pytest.mark.parametrize(("image", "package"), [("claude", "@anthropic-ai/claude-code"), ("codex", "@openai/codex")])
def test_an_image_installs_the_pinned_version(image: str, package: str) -> None:
    text = (ROOT / "bottle" / "images" / f"{image}.Dockerfile").read_text()
    assert f"{package}@{PACKAGES[package]}\n" in text
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", PACKAGES[package])


def test_each_package_is_held_to_its_hash_and_to_no_address() -> None:
    for name, each in LOCK["packages"].items():
        assert not name or each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name
