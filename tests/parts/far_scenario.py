"""A tour of every file operation in Python 3.8's words, for another interpreter or another user to run.

Run as a program: `python far_scenario.py DIRECTORY`; prints what `scenario` returns, as JSON.
"""

from __future__ import annotations

import hashlib  # noqa: F401 -- loaded while the library can be read: the code under test wants it as another user
import json
import os
import sys

from opsexec.far import attributes, facts, files, observe, removal, writing  # noqa: F401 -- as above
from opsexec.far.message import FarError, pack_layers
from opsexec.far.operations import OPERATIONS


def scenario(root):
    """Return each call's answer in words that don't depend on the directory or the user."""
    said = []
    grants = pack_layers([[root + "/**"]])

    def call(operation, path, *rest):
        try:
            answer = OPERATIONS[operation]([os.fsencode(root + path), grants, *rest])
            words = [item.decode("utf-8", "backslashreplace") for item in answer]
        except FarError as error:
            words = ["!" + error.code, error.text]
        said.append([operation, path] + [word.replace(root, "ROOT") for word in words])

    none = [b"", b"", b""]
    call("write_file", "/a/b/f", b"one\n", *none, b"0", b"0", b"", b"0")
    call("write_file", "/a/b/f", b"one\n", *none, b"1", b"1", b"", b"0")
    call("write_file", "/a/b/f", b"one\n", *none, b"1", b"0", b"", b"0")
    call("write_file", "/a/b/f", b"one\n", *none, b"1", b"0", b"", b"0")
    call("write_file", "/a/b/f", b"two\n", b"0600", b"", b"", b"1", b"0", grants, b"0")
    call("write_file", "/a/b/f", b"two\n", b"0640", b"", b"", b"1", b"0", grants, b"0")
    call("read_file", "/a/b/f", b"0", b"100")
    call("read_file", "/a/b/f", b"1", b"2")
    call("make_dir", "/d/e", b"0750", b"", b"", b"1", b"0")
    call("make_dir", "/d/e", b"0700", b"", b"", b"1", b"0")
    call("link", "/d/l", b"../a/b/f", b"0")
    call("link", "/d/l", b"../a/b", b"0")
    call("link", "/d/out", b"/etc", b"0")
    call("read_file", "/d/l/f", b"0", b"100")
    call("read_file", "/d/out/passwd", b"0", b"100000")
    call("write_file", "/d/out/x", b"x", *none, b"1", b"0", b"", b"0")
    call("set_mode", "/a/b/f", b"0604", b"", b"", b"0")
    call("set_mode", "/d/l", b"0604", b"", b"", b"0")
    call("remove", "/a", b"0", b"0")
    call("remove", "/a", b"1", b"1")
    call("remove", "/a", b"1", b"0")
    call("remove", "/a", b"1", b"0")
    call("write_file", "/caf\udce9", b"x", *none, b"0", b"0", b"", b"0")
    call("stat", "/none")
    kept = ("exists", "kind", "size", "mode", "target", "sha256")
    for path in ("/d", "/d/e", "/d/l", "/caf\udce9"):
        found = json.loads(OPERATIONS["stat"]([os.fsencode(root + path), grants, b"1"])[0])
        said.append([path, {name: found.get(name) for name in kept}])
    names = "os,kernel,cpu,memory,disks,network,user,python,tools"
    told = json.loads(OPERATIONS["facts"]([names.encode()])[0])
    said.append(sorted(name for name in told if told[name] is not None))
    sample = json.loads(OPERATIONS["observe"]([b"load,memory,disks"])[0])
    said.append(sorted(name for name in sample if sample[name] is not None))
    return said


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(scenario(sys.argv[1])))
