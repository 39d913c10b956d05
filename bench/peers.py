"""The peers' virtual environment: made once for each pinned list, outside the repository."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).with_name("requirements-peers.txt")
CONTESTANTS = Path(__file__).with_name("contestants")
ROOT = Path(__file__).parents[1]


def venv_path() -> Path:
    """Where the venv of exactly these pins and this Python stands."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(PINS.read_bytes() + version.encode()).hexdigest()[:12]
    return cache / "opsexec" / f"bench-venv-{digest}"


def ensure_venv() -> Path:
    """Return the venv, making it when it isn't complete; raises CalledProcessError when pip fails."""
    venv = venv_path()
    stamp = venv / "complete"
    if not stamp.exists():
        print(f"bench: installing the peers into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(PINS)], check=True)
        stamp.touch()
    return venv


def versions() -> dict[str, str]:
    """The five peers' pinned versions, by name."""
    pins = [line.split("==") for line in PINS.read_text().splitlines() if "==" in line]
    return {pin[0]: pin[1] for pin in pins[:5]}
