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


def tree() -> Path:
    """Return where a tree of tools is looked for: `$BOTTLE_TOOLS`, else `tools` in the home root."""
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else home_root().absolute() / "tools"


def with_tools(runtime: Runtime, plan: BottlePlan) -> Runtime:
    """Return the runtime with the tree that the agent finds at `/opt/bottle/tools`, where there is one.

    Raises HostUnready for a tree that others may change, and when a program that the provider names is neither in its
    `bin` nor in the directories that a bottle shares.
    """
    place = tree()
    for program in plan.provider.programs:
        if where(program) is None:
            hint = (
                f"scripts/agents.sh {place} puts it there; or put it in {place}/bin, or set {VARIABLE} to such a tree"
            )
            raise HostUnready(f"there is no program {program!r} for the provider {plan.provider.name}", hint=hint)
    return replace(runtime, tools=str(place) if _ours(place) else None)


def where(program: str) -> str | None:
    """Return where an agent's program is on this host; only what is in the tree or below /usr can be seen in a bottle.

    Raises HostUnready for a tree that others may change.
    """
    place = tree()
    tops = {f"{TOOLS}/bin": place} if _ours(place) else {}
    for directory in GUEST_PATH.split(":"):
        if directory.startswith(TOOLS) and directory not in tops:
            continue
        top = tops.get(directory, Path("/usr"))
        path = top / "bin" / program if directory in tops else Path(directory, program)
        if _leads_below(path, top):
            return str(path)
    return None


def _ours(top: Path) -> bool:
    """Return whether there is a tree; raises HostUnready when somebody else may change what stands in it."""
    hint = f"a tree of tools is a directory that you alone may write; {VARIABLE} names another"
    for path in (top, top / "bin"):
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


def _leads_below(path: Path, top: Path) -> bool:
    real = os.path.realpath(path)
    return os.access(real, os.X_OK) and os.path.isfile(real) and Path(real).is_relative_to(os.path.realpath(top))
