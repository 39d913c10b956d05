"""Starting the far session on a machine that has python3 and nothing of ours: one shell line, then its modules.

The line is plain enough for any login shell (sh, bash, zsh, fish, csh): one single-quoted word for /bin/sh. Paths and
words are UTF-8 there too, whatever the locale of its host is (an unknown `-X` is ignored). Modules
go as source; those every session needs go compiled too, for the frequent case that both Pythons have one byte code.
"""

from __future__ import annotations

import importlib.util
import marshal
import re
import secrets
import zlib
from functools import cache
from pathlib import Path

from opsexec.far.message import pack_message

PYTHONS = ("/usr/bin/python3", "python3", "/usr/local/bin/python3", "/usr/libexec/platform-python")
NO_PYTHON = 97
"""Exit status of the start line when the host has no python3."""
CORE = ("drain", "feeding", "frames", "message", "launch", "outbox", "run", "session", "spawn", "tree_end")
"""The modules a session needs before it is asked for an operation; the others follow with the first one."""
STAGE_ONE_SIZE = 320
STAGE_TWO_SIZE = 3072
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
import sys,marshal
import _frozen_importlib_external as X
from _frozen_importlib import ModuleSpec
O=getattr(X,"MAGIC_NUMBER",b"")==G
class F:
 def __init__(s):s.more={}
 def adopt(s,items):s.more.update(zip([n.decode() for n in items[::2]],items[1::2]))
 def find_spec(s,n,p=None,t=None):
  if n in S or n in s.more:return ModuleSpec(n,s,is_package=n in("opsexec","opsexec.far"))
 def create_module(s,spec):return None
 def exec_module(s,m):
  n=m.__name__
  a,b,c=S.get(n,(0,0,0))
  if n in s.more:d=compile(s.more[n],n,"exec",dont_inherit=True)
  elif O and c>b:d=marshal.loads(D[b:c])
  else:d=compile(D[a:b],n,"exec",dont_inherit=True)
  exec(d,m.__dict__)
sys.meta_path.insert(0,F())
__import__("opsexec.far."+M,None,None,["main"]).main(N)
"""
"""Serves modules out of the blob D, in which S says where each one's source is and, behind it, its byte code."""


_FAR = Path(__file__).parent.parent / "far"
_FROM_MODULE = re.compile(r"^\s*from opsexec\.far\.(\w+) import", re.MULTILINE)
_FROM_PACKAGE = re.compile(r"^\s*from opsexec\.far import ([\w, ]+)$", re.MULTILINE)


def _source(stem: str) -> bytes:
    return (_FAR / f"{stem}.py").read_bytes()


def needed(stem: str) -> list[str]:
    """Return the far modules that one of them imports, itself included, at its top or when it gets there."""
    found: list[str] = []
    pending = [stem]
    while pending:
        stem = pending.pop()
        if stem not in found:
            found.append(stem)
            source = _source(stem).decode()
            pending += _FROM_MODULE.findall(source)
            pending += [name.strip() for names in _FROM_PACKAGE.findall(source) for name in names.split(",")]
    return sorted(found)


@cache
def _bundle(module: str) -> bytes:
    """Return the compressed second stage: the importer, and the core modules, or what another module needs."""
    places: dict[str, tuple[int, int, int]] = {"opsexec": (0, 0, 0), "opsexec.far": (0, 0, 0)}
    blob = b""
    for stem in CORE if module == "session" else needed(module):
        source = _source(stem)
        name = f"opsexec.far.{stem}"
        code = marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=2)) if stem in CORE else b""
        middle = len(blob) + len(source)
        places[name] = (len(blob), middle, middle + len(code))
        blob += source + code
    two = f"S={places!r}\nG={importlib.util.MAGIC_NUMBER!r}\n{_STAGE_TWO}".encode()
    assert len(two) <= STAGE_TWO_SIZE
    return zlib.compress(two.ljust(STAGE_TWO_SIZE) + blob, 9)


@cache
def other_sources() -> bytes:
    """Return the SOURCES frame's payload: the modules that a session gets with its first operation."""
    others = [stem for stem in needed("session") if stem not in CORE]
    items = [part for stem in others for part in (f"opsexec.far.{stem}".encode(), _source(stem))]
    return zlib.compress(pack_message(items), 9)


def start_line() -> str:
    """Return the command for the login shell; it ends with NO_PYTHON where no python3 is found."""
    code = f"import os;exec(os.read(0,{STAGE_ONE_SIZE}))"
    tries = " ".join(PYTHONS)
    start = f'exec $p -I -S -X utf8 -c "{code}"'
    script = f"for p in {tries}; do command -v $p >/dev/null && {start}; done; exit {NO_PYTHON}"
    return f"exec /bin/sh -c '{script}'"


def argv() -> list[str]:
    """Return the start line as an argv, for a local process."""
    return ["/bin/sh", "-c", start_line()]


def opening(nonce: str, module: str = "session") -> bytes:
    """Return what to send on stdin right after the start line: it ends by calling `main(nonce)` of a far module."""
    bundle = _bundle(module)
    one = _STAGE_ONE.format(nonce=nonce, module=module, size=len(bundle), two=STAGE_TWO_SIZE).encode()
    assert len(one) <= STAGE_ONE_SIZE
    return one.ljust(STAGE_ONE_SIZE) + bundle


def new_nonce() -> str:
    """Return the text the session says first; what comes before it on stdout is noise of the host's shell."""
    return f"opsexec-session-{secrets.token_hex(16)}\n"
