"""What of this machine a bundle runs on: the environment with mitmproxy, and the Python behind it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bottle.errors import HostUnready

VARIABLE = "BOTTLE_EGRESS_ENV"


@dataclass(frozen=True)
class Runtime:
    """`python`: absolute. `trees`: directories it needs, bound at their own paths. `code`: the `bottle` package."""

    python: str
    trees: tuple[str, ...]
    code: str


def find_runtime() -> Runtime:
    """Return what the bundle runs on: `$BOTTLE_EGRESS_ENV`, else the environment beside this one, named `<it>-egress`.

    Raises HostUnready where there is none.
    """
    named = os.environ.get(VARIABLE)
    place = Path(named) if named else Path(f"{sys.prefix}-egress")
    config = place / "pyvenv.cfg"
    hint = f"scripts/setup.sh makes it; or set {VARIABLE} to an environment with mitmproxy"
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
    return Runtime(str(place.resolve() / "bin" / "python"), tuple(trees), str(Path(__file__).parent.resolve()))
