"""The end of a bottle, and what it leaves: it comes whoever listens, and its home is kept for the next launch."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import termios

from tests.parts.bottle_running import SCRIPT_HEAD, Bottles, identity_in
from tests.parts.small_bottles import bottles as bottles
from tests.parts.small_bottles import upstream as upstream  # fixtures, found by name
from tests.parts.waiting import eventually_now

WORK = "[ -e note ] && exec cat note; echo kept > note"


def test_a_resume_that_fails_leaves_a_bottle_that_cleanup_keeps(bottles: Bottles) -> None:
    identity = bottles.run("worker", ["/bin/sh", "-c", WORK]).identity
    failed = bottles.command("resume", identity, "-y", "--tty")
    assert (failed.returncode, "leave --tty out" in failed.stderr) == (2, True)
    assert bottles.command("cleanup").stdout == ""
    again = bottles.command("resume", identity, "-y")
    assert (again.returncode, again.stdout) == (0, "kept\n"), again.stderr


def stopped_while_coming_up(bottles: Bottles, argv: list[str]) -> str:
    """What a launcher says that is told to end once its authority is made; asked again where its agent ran already."""
    for _ in range(20):
        launcher = subprocess.Popen(
            argv, env=bottles.environ(), cwd=bottles.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert launcher.stderr is not None
        while "bottle: CA " not in (line := launcher.stderr.readline()):
            assert line
        launcher.terminate()
        _, said = launcher.communicate(timeout=60)
        assert launcher.returncode == 143, said
        if " is running" not in said:
            return said
    raise AssertionError("it always runs already")


def test_one_that_is_stopped_while_it_comes_up_is_what_it_was_before(bottles: Bottles) -> None:
    said = stopped_while_coming_up(bottles, bottles.start_argv("worker", ["/bin/sh", "-c", WORK]))
    identity = said.splitlines()[-1].split()[1]
    listed = {
        each["identity"]: each["state"]
        for each in json.loads(bottles.command("list", "--all", "--json").stdout)["bottles"]
    }
    assert listed[identity] == "left behind"
    assert f"removed {identity}\n" in bottles.command("cleanup").stdout
    assert not bottles.state(identity).exists()
    ran = bottles.run("worker", ["/bin/sh", "-c", WORK]).identity
    stopped_while_coming_up(bottles, bottles.argv("resume", ran, "-y"))
    assert bottles.command("cleanup").stdout == ""
    again = bottles.command("resume", ran, "-y")
    assert (again.returncode, again.stdout) == (0, "kept\n"), again.stderr


def waiting_in(fd: int) -> int:
    """How many bytes of a pipe nobody has read (pipe(7), FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


def test_a_bottle_whose_output_nobody_reads_is_stopped(bottles: Bottles) -> None:
    launcher = bottles.begin("worker", ["/bin/sh", "-c", "yes | head -c 4000000; exec sleep 600"])
    try:
        assert launcher.stdout is not None
        said = launcher.stdout.fileno()
        full = fcntl.fcntl(said, fcntl.F_GETPIPE_SZ)
        eventually_now(lambda: waiting_in(said) == full, within_s=60, what="a pipe that takes no more")
        (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        stopped = bottles.command("stop", row["identity"])
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert launcher.wait(60) == 143
    finally:
        launcher.kill()
        launcher.communicate()


REFUSED = """
import pathlib, sys, time

def wait(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.05)

wait('go')
tunnel('evil.test')
pathlib.Path('asked').touch()
wait('end')
sys.exit(7)
"""


def read_until(fd: int, text: str) -> str:
    """What a terminal shows, up to some text."""
    said = b""
    while text.encode() not in said:
        said += os.read(fd, 4096)
    return said.decode()


def test_a_terminal_that_stands_still_holds_up_nothing_of_a_bottle(bottles: Bottles) -> None:
    bottles.root.bottle("dev", "egress: {routes: [{host: open.test}]}\n")
    leader, follower = os.openpty()
    launcher = subprocess.Popen(
        bottles.start_argv("worker", ["/usr/bin/python3", "-c", SCRIPT_HEAD + REFUSED]),
        env=bottles.environ(), cwd=bottles.cwd, stdout=subprocess.DEVNULL, stderr=follower,
    )  # fmt: skip
    try:
        identity = identity_in(read_until(leader, " is running\r\n"))
        home = bottles.state(identity) / "home"
        termios.tcflow(follower, termios.TCOOFF)  # as by Ctrl-S
        (home / "go").touch()
        eventually_now(
            lambda: (home / "asked").exists() and "deny" in {each["decision"] for each in bottles.audit(identity)},
            within_s=60,
            what="a refusal",
        )
        beside = bottles.command("exec", identity, "--", "/bin/echo", "beside")
        assert (beside.returncode, beside.stdout) == (0, "beside\n"), beside.stderr
        termios.tcflow(follower, termios.TCOON)
        assert "bottle: egress refused CONNECT evil.test" in read_until(leader, "evil.test")
        (home / "end").touch()
        assert launcher.wait(60) == 7
    finally:
        launcher.kill()
        launcher.wait()
        os.close(follower)
        os.close(leader)
