"""A home root with manifests, written by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottle.errors import BadManifest
from bottle.manifest import load_directories
from bottle.manifest.kinds import Bottle

ROUTE = "egress:\n  routes:\n    - host: {}\n"


class HomeRoot:
    """`~/.bot-bottle` of a test's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("bottles", "agents"):
            (path / name).mkdir(parents=True, exist_ok=True)
        for each in (path, path / "bottles", path / "agents"):
            each.chmod(0o755)

    def bottle(self, name: str, front: str) -> Path:
        """Write a bottle; `front` is its front matter."""
        return self._write("bottles", name, front, "")

    def agent(self, name: str, front: str, prompt: str = "") -> Path:
        """Write an agent."""
        return self._write("agents", name, front, prompt)

    def _write(self, kind: str, name: str, front: str, body: str) -> Path:
        path = self.path / kind / f"{name}.md"
        path.write_text(f"---\n{front}---\n{body}", "utf-8")
        path.chmod(0o644)
        return path


def load(home: HomeRoot, name: str = "a", cwd: Path | None = None) -> Bottle:
    return load_directories(home.path, cwd).load(name).bottle


def refusal(home: HomeRoot, front: str) -> tuple[str, str]:
    home.bottle("dev", front)
    with pytest.raises(BadManifest) as caught:
        load(home)
    return caught.value.message, caught.value.hint or ""
