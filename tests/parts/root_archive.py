"""A distribution's root file system as a tar archive, made once and kept outside the repository by what it holds."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class RootArchive(NamedTuple):
    """`kind`: the folder it is kept in; `packages`: as mmdebstrap takes them; `left_out`: patterns of paths."""

    kind: str
    packages: str
    left_out: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where it is kept."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        held = [_codename(), self.packages, *([str(self.left_out)] if self.left_out else []), platform.machine()]
        key = hashlib.sha256(" ".join(held).encode()).hexdigest()[:16]
        return cache / "opsexec" / self.kind / key / "root.tar"

    @property
    def can_be(self) -> bool:
        """Whether it is there, or can be made."""
        return self.path.exists() or shutil.which("mmdebstrap") is not None

    def made(self) -> Path:
        """Return it, made by the first of those who want it: the others wait, two at once would take twice as long."""
        tar = self.path
        tar.parent.mkdir(parents=True, exist_ok=True)
        with (tar.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not tar.exists():
                unfinished = tar.with_name(f"{secrets.token_hex(4)}.tar")
                argv = ["mmdebstrap", "-q", "--variant=minbase", f"--include={self.packages}"]
                argv += [f"--dpkgopt=path-exclude={each}" for each in self.left_out]
                subprocess.run([*argv, _codename(), str(unfinished)], check=True, timeout=600)
                unfinished.rename(tar)
        return tar


def _codename() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")
