"""The keeper outside a sandbox ends what is over its bounds, whoever reads or doesn't read what it says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsexec.far.sandbox_keep import OVER
from tests.parts.waiting import eventually_now

KEEPER = "import sys; from opsexec.far.sandbox_keep import main; main(sys.argv[1:])"
GREEDY = "#!/bin/sh\necho $$ > {pid}\nexec sleep 600\n"
"""In bubblewrap's place: passes over the words it is given, as what is tried lies outside of a sandbox."""
LARGE = 64 << 20

pytestmark = pytest.mark.timeout(240)  # where others make that much room meanwhile, it is seen within a minute


@pytest.mark.parametrize("blocking", [True, False], ids=["as it was opened", "set not to block, by the program"])
def test_what_is_over_its_bound_ends_though_nobody_reads_its_keeper_s_words(tmp_path: Path, blocking: bool) -> None:
    """The program writes to the same pipe, and can fill it; its other end waits as an operator's screen does."""
    tree, told, program = tmp_path / "tree", tmp_path / "pid", tmp_path / "program"
    tree.mkdir()
    with (tree / "large").open("wb") as large:
        os.posix_fallocate(large.fileno(), 0, LARGE)
    program.write_text(GREEDY.format(pid=told))
    program.chmod(0o755)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    while True:
        try:
            filled += os.write(writing, bytes(1 << 16))
        except BlockingIOError:
            break
    os.set_blocking(writing, blocking)
    words = [sys.executable, "-c", KEEPER, "greedy", "bytes=65536", f"tree={tree}", "--", str(program), "--", "x"]
    keeper = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    try:
        eventually_now(lambda: told.exists() and told.read_text().endswith("\n"), within_s=100.0, what="it runs")
        pid = int(told.read_text())
        eventually_now(lambda: _ended(pid), within_s=100.0, what="it ended")
        with open(reading, "rb") as said:
            text = said.read()[filled:].decode()
        assert keeper.wait(60) == OVER
        assert text == "sandbox greedy: its files are over 65536 bytes: ended\n"
    finally:
        keeper.kill()
        keeper.wait()


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it was waited for
        return True
    return state == "Z"
