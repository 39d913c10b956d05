"""Starting the far session on a machine that has python3 and nothing of ours: one shell line, then its source on stdin.

The line is plain enough for any login shell (sh, bash, zsh, fish, csh): one single-quoted word for /bin/sh.
"""

from __future__ import annotations

import secrets
import zlib
from functools import lru_cache
from pathlib import Path

PYTHONS = ("/usr/bin/python3", "python3", "/usr/local/bin/python3", "/usr/libexec/platform-python")
NO_PYTHON = 97
"""Exit status of the start line when the host has no python3."""

STAGE_ONE_SIZE = 320
STAGE_TWO_SIZE = 4096
"""Both stages are padded to these sizes, so that the start line never changes."""

_STAGE_ONE = """import os,zlib
def r(n):
 b=b""
 while len(b)<n:
  c=os.read(0,n-len(b))
  if not c:os._exit(0)
  b+=c
 return b
N={nonce!r}
M={module!r}
D=zlib.decompress(r({size}))
C,D=D[:{two}],D[{two}:]
exec(C)
"""

_STAGE_TWO = """
import sys
from _frozen_importlib import ModuleSpec
class F:
 def find_spec(s,n,p=None,t=None):
  if n in S:return ModuleSpec(n,s,is_package=n in("opsexec","opsexec.far"))
 def create_module(s,spec):return None
 def exec_module(s,m):
  a,b=S[m.__name__]
  exec(compile(D[a:b],m.__name__,"exec",dont_inherit=True),m.__dict__)
sys.meta_path.insert(0,F())
__import__("opsexec.far."+M,None,None,["main"]).main(N)
"""
"""Serves modules out of the blob D, in which S says where each one's source is; each is compiled at its first use."""


@lru_cache(maxsize=1)
def _bundle() -> bytes:
    """Return the compressed second stage: the source of every far module and the importer that serves them."""
    far = Path(__file__).parent.parent / "far"
    places: dict[str, tuple[int, int]] = {"opsexec": (0, 0), "opsexec.far": (0, 0)}
    blob = b""
    for file in sorted(far.glob("*.py")):
        if file.stem != "__init__":
            source = file.read_bytes()
            places[f"opsexec.far.{file.stem}"] = (len(blob), len(blob) + len(source))
            blob += source
    return zlib.compress(f"S={places!r}\n{_STAGE_TWO}".encode().ljust(STAGE_TWO_SIZE) + blob, 9)


def start_line() -> str:
    """Return the command for the login shell; it ends with NO_PYTHON where no python3 is found."""
    code = f"import os;exec(os.read(0,{STAGE_ONE_SIZE}))"
    tries = " ".join(PYTHONS)
    script = f'for p in {tries}; do p=$(command -v $p) && exec $p -I -S -c "{code}"; done; exit {NO_PYTHON}'
    return f"exec /bin/sh -c '{script}'"


def argv() -> list[str]:
    """Return the start line as an argv, for a local process."""
    return ["/bin/sh", "-c", start_line()]


def opening(nonce: str, module: str = "session") -> bytes:
    """Return what to send on stdin right after the start line: it ends by calling `main(nonce)` of a far module."""
    bundle = _bundle()
    one = _STAGE_ONE.format(nonce=nonce, module=module, size=len(bundle), two=STAGE_TWO_SIZE).encode()
    return one.ljust(STAGE_ONE_SIZE) + bundle


def new_nonce() -> str:
    """Return the text the session says first; what comes before it on stdout is noise of the host's shell."""
    return f"opsexec-session-{secrets.token_hex(16)}\n"
