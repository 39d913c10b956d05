"""Where a provider's programs come from when a bottle has no image: the host's own directories, or a tree of tools."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from bottle.errors import HostUnready
from bottle.manifest.store import home_root
from bottle.plan import GUEST_PATH, TOOLS, BottlePlan
from bottle.runtime import Runtime

VARIABLE = "BOTTLE_TOOLS"


def with_tools(runtime: Runtime, plan: BottlePlan) -> Runtime:
    """Return the runtime with the tree that the agent finds at `/opt/bottle/tools`, where there is one.

    That is `$BOTTLE_TOOLS`, else `tools` in the home root. Raises HostUnready for a tree that others may change, and
    when a program that the provider names is neither in its `bin` nor in the directories that a bottle shares.
    """
    named = os.environ.get(VARIABLE)
    tree = Path(named).absolute() if named else home_root().absolute() / "tools"
    found = str(tree) if _ours(tree) else None
    for program in plan.provider.programs:
        if not _there(program, found):
            hint = f"scripts/agents.sh {tree} puts it there; or put it in {tree}/bin, or set {VARIABLE} to such a tree"
            raise HostUnready(f"there is no program {program!r} for the provider {plan.provider.name}", hint=hint)
    return replace(runtime, tools=found)


def _ours(tree: Path) -> bool:
    """Return whether there is a tree; raises HostUnready when somebody else may change what stands in it."""
    hint = f"a tree of tools is a directory that you alone may write; {VARIABLE} names another"
    for path in (tree, tree / "bin"):
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostUnready(f"{path}: can't be read ({error.strerror})", hint=hint) from error
        if not stat.S_ISDIR(info.st_mode):
            raise HostUnready(f"{path}: is no directory of its own", hint=hint)
        if info.st_mode & 0o022 or info.st_uid not in (0, os.geteuid()):
            raise HostUnready(f"{path}: others may write it", hint=hint)
    return True


def _there(program: str, tree: str | None) -> bool:
    """Return whether the agent would find a program: only what is below the tree or /usr can be seen in a bottle."""
    for directory in GUEST_PATH.split(":"):
        if directory.startswith(TOOLS):
            if tree is not None and _leads_below(Path(tree, "bin", program), Path(tree)):
                return True
        elif _leads_below(Path(directory, program), Path("/usr")):
            return True
    return False


def _leads_below(path: Path, top: Path) -> bool:
    real = os.path.realpath(path)
    return os.access(real, os.X_OK) and os.path.isfile(real) and Path(real).is_relative_to(os.path.realpath(top))
