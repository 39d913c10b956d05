"""A locale that is not UTF-8: the programs and the library send the same bytes there as anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""In UTF-8 mode, which Python is otherwise in here, nothing would be told apart."""

SENDS = r"""
import asyncio, os, sys
from opsexec.hosts import local_spawn, local_start
from opsexec.steps import Exec
from opsexec import CapabilitySet, NullAudit
from opsexec.local import LocalExec
assert sys.getfilesystemencoding() == "ascii"
if sys.argv[1] == "subprocess":
    local_spawn._library = lambda: None
if sys.argv[1] == "vfork":  # also where it would be taken for a start that may hang
    start = local_spawn.start
    local_start.start = lambda *given, may_hang: start(*given, may_hang=False)
    local_spawn._library = lambda: None
folder = os.fsencode(sys.argv[2]).decode()
async def main():
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=NullAudit()) as host:
        step = Exec((folder + "/zeig-\u00fc", "a-\u00e9-\udcff"), env={"WORD": "\u00df-\udcfe"}, cwd=folder)
        output = await host.run(step)
        sys.stdout.buffer.write(output.stdout)
asyncio.run(main())
"""

SHOWS = """#!/bin/sh
printf '%s\\n' "$PWD" "$1"
env | grep -a ^W
"""


def in_ascii(*words: str, home: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.defpath, "HOME": os.fspath(home), **ASCII}
    return subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, env=environment, capture_output=True, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ordnär"
    made.mkdir()
    (made / "zeig-ü").write_text(SHOWS)
    (made / "zeig-ü").chmod(0o755)
    return made


@pytest.mark.parametrize("way", ["vfork", "posix_spawn", "subprocess"])
def test_the_library_gives_a_program_its_words_variables_and_directory(way: str, folder: Path) -> None:
    done = in_ascii("-c", SENDS, way, os.fspath(folder), home=folder)
    assert done.stderr.decode() == ""
    assert done.stdout == os.fsencode(folder) + "\na-é-".encode() + b"\xff\n" + "WORD=ß-".encode() + b"\xfe\n"


@pytest.mark.parametrize("module", ["opsexec.cli", "agent", "bottle"])
def test_a_program_speaks_utf_8(module: str, tmp_path: Path) -> None:
    script = (
        "import sys, runpy, atexit; sys.argv[0] = 'program'; "
        "atexit.register(lambda: print(sys.flags.utf8_mode, sys.argv[1:]) if sys.flags.utf8_mode else None); "
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    done = in_ascii("-c", script, "--version", home=tmp_path)
    assert done.stderr.decode() == ""
    assert done.stdout.endswith(b"1 ['--version']\n")
