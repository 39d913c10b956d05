"""Bottles of a plain user: no root, no setuid helper, nothing of root's; started on the system's Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import require
from tests.parts.bottle_engine import DOCKERFILE, BottleEngine
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import REPOSITORY, TOKEN, Bottles, egress_environment, require_bottles
from tests.parts.upstream_tls import Upstream

SYSTEM_PYTHON = Path("/usr/bin/python3")


@dataclass
class PlainBottles(Bottles):
    """The commands, as a user runs them. `place`: a directory of the user's."""

    user: str = ""
    place: Path = Path("/nonexistent")

    def reaching(self) -> list[str]:
        """The options by which egress finds and trusts the upstream, from a copy that the user can read."""
        return [*super().reaching()[:-1], str(self.place / "upstream-ca.pem")]

    def environ(self) -> dict[str, str]:
        """The launcher's environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}",
            "BOTTLE_EGRESS_ENV": str(self.place / "egress"),
            "BOT_BOTTLE_ROOT": str(self.root.path),
            "API_TOKEN": TOKEN,
            **({} if self.engine is None else {"DOCKER_HOST": self.engine.address}),
            **self.env,
        }

    def argv(self, *words: str) -> list[str]:
        """A `bottle` command."""
        login = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return [*login, str(SYSTEM_PYTHON), "-m", "bottle", *words]


def same_python() -> bool:
    """Whether the system's Python can use what this one has installed."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([SYSTEM_PYTHON, "-I", "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == wanted


def plain_bottles(
    directory: Path, user: str, upstream: Upstream, *, engine: BottleEngine | None = None, **bottles: str
) -> PlainBottles:
    """Make the user's own home root with these bottles, and an egress environment that they can read.

    `directory` must be open to the user, with all above it. `engine`: they are containers there, and the user may use
    it from now on.
    """
    require_bottles()
    require(SYSTEM_PYTHON, "needs the system's python3")
    require(same_python(), "needs the system's python3 to be of this environment's version")
    environment = directory / "egress"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(SYSTEM_PYTHON)
    (environment / "pyvenv.cfg").write_text(f"home = {SYSTEM_PYTHON.parent}\n")
    shutil.copytree(egress_environment() / "lib", environment / "lib", copy_function=_link)
    root = HomeRoot(directory / "root")
    for name, front in bottles.items():
        root.bottle(name, front)
    root.agent("worker", f"bottle: {next(iter(bottles))}\n")
    authority = directory / "upstream-ca.pem"
    shutil.copy(upstream.ca, authority)
    authority.chmod(0o644)
    if engine is not None:
        (root.path / "agent.Dockerfile").write_text(DOCKERFILE)
        engine.home.chmod(0o711)
        # By its group, as an engine's administrator gives it: the engine stays root's own for the tests that follow.
        shutil.chown(engine.socket, group=user)
    for path in (directory, root.path, *root.path.rglob("*")):
        shutil.chown(path, user, user)
    return PlainBottles(root, upstream, cwd=directory, engine=engine, user=user, place=directory)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
