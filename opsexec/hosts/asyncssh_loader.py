"""Loads asyncssh without the compilers it would run: import it from here, nowhere else.

`import asyncssh` looks for liboqs with `ctypes.util.find_library`, which runs ldconfig, gcc and ld from PATH: 30 ms,
and programs nobody asked for in a tool that is trusted with keys. Here only the usual directories are looked into.
"""

from __future__ import annotations

import ctypes.util
import sys
from pathlib import Path

_LIBRARY_DIRECTORIES = ("/usr/local/lib", "/usr/lib", "/lib", "/usr/lib64", "/lib64", "/opt/homebrew/lib")


def _find_library(name: str) -> str | None:
    """Return the path of a shared library in the usual directories; runs nothing."""
    for directory in _LIBRARY_DIRECTORIES:
        for place in (Path(directory), *Path(directory).glob("*-linux-gnu")):
            for ending in (".so", ".dylib"):
                file = place / f"lib{name.removeprefix('lib')}{ending}"
                if file.exists():
                    return str(file)
    return None


if "asyncssh" not in sys.modules:
    _original = ctypes.util.find_library
    ctypes.util.find_library = _find_library
    try:
        import asyncssh
    finally:
        ctypes.util.find_library = _original
else:
    import asyncssh

__all__ = ["asyncssh"]
