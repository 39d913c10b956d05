"""A process that swaps what stands at a path, thousands of times a second, while a test works there."""

from __future__ import annotations

import subprocess
import sys

EXCHANGE = """
import ctypes, itertools, os, sys
one, other = (os.fsencode(word) for word in sys.argv[1:3])
libc = ctypes.CDLL(None)
for count in itertools.count(1):
    libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE: neither name is ever missing
    if count % 1000 == 0:
        print(count, flush=True)
"""

REPLACE = """
import itertools, os, sys
path, target = sys.argv[1:3]
aside = os.path.join(os.path.dirname(os.path.dirname(path)), "aside")
for count in itertools.count(1):
    if count % 2:
        os.symlink(target, aside)
    else:
        with open(aside, "wb") as file:
            file.write(b"open")
    os.rename(aside, path)
    if count % 1000 == 0:
        print(count, flush=True)
"""


class Swapper:
    """`exchange`: two names change places. `replace`: a link to `other`, then a file, stands at `one`."""

    def __init__(self, kind: str, one: object, other: object) -> None:
        code = {"exchange": EXCHANGE, "replace": REPLACE}[kind]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, str(one), str(other)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.count = 0

    def __enter__(self):
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_error) -> None:
        alive = self._process.poll() is None
        self._process.kill()
        said, wrong = self._process.communicate()
        self.count = int(said.split()[-1]) if said.split() else 0
        assert alive, wrong
