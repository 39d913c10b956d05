"""The other Python interpreters of this machine, for code that must run on a host's own."""

from __future__ import annotations

import shutil
import subprocess

MINORS = range(8, 15)


def other_pythons() -> dict[str, str]:
    """Working interpreters by version ("3.8"): on PATH, or a version manager's."""
    found = {}
    for minor in MINORS:
        version = f"3.{minor}"
        for candidate in (shutil.which(f"python{version}"), _managed(version)):
            if candidate and _works(candidate, version):
                found[version] = candidate
                break
    return found


def _works(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=20, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def _managed(version: str) -> str | None:
    """Ask pyenv, whose shims on PATH only work for the versions that are switched on."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return None
    listed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, timeout=20, check=False)
    for name in listed.stdout.split():
        if name.startswith(f"{version}."):
            prefix = subprocess.run([pyenv, "prefix", name], capture_output=True, text=True, timeout=20, check=False)
            if prefix.returncode == 0:
                return f"{prefix.stdout.strip()}/bin/python3"
    return None
