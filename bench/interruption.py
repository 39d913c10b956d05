"""Interrupts a contestant that holds a running command, and looks at what is left of the command."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Entrant, environment
from tests.parts.delay_proxy import DelayProxy
from tests.parts.process_tree import process_table, processes_with_argument

EVENTS = ("Ctrl-C", "SIGKILL", "deadline", "cancel", "cut")
#: Seconds within which the tree has to be gone.
BOUNDS_S = {"Ctrl-C": 1.0, "SIGKILL": 3.0, "deadline": 1.0, "cancel": 1.0, "cut": 3.0}
#: Long enough for the slowest of them to have started the command, on a slow machine too.
DEADLINE_S = 6
START_BOUND_S = 40.0
EXIT_BOUND_S = 10.0
#: pyinfra and ansible have no cancellable call: what their users do is end the process.
ENDED_BY_SIGTERM = ("with_pyinfra.py", "with_ansible.py")


@dataclass(frozen=True)
class Holding:
    """Which contestant is to be interrupted, how, and the number that marks the processes of its command."""

    entrant: Entrant
    job: dict[str, Any]
    event: str
    marker: str
    proxy: DelayProxy

    @property
    def arguments(self) -> dict[str, str]:
        """sleep(1)'s argument for each kind of process: a day, told apart by its fraction."""
        return {kind: f"86400.{digit}{self.marker}" for digit, kind in enumerate(("plain", "child", "setsid"), 1)}

    @property
    def script(self) -> str:
        """A command with a child in the background and one in a session of its own."""
        names = self.arguments
        return f"setsid sleep {names['setsid']} & sleep {names['child']} & sleep {names['plain']}"


@dataclass(frozen=True)
class Aftermath:
    """What was left, after how long the last one was gone, and whether the caller itself ended."""

    left: int
    kinds: tuple[str, ...] = ()
    seconds: float | None = None
    caller_ended: bool = True
    failed: str = ""

    def words(self) -> str:
        """One cell of the table."""
        if self.failed:
            return "failed"
        kept = f"gone ({self.seconds:.1f} s)" if not self.left else f"{self.left} of 3 left"
        if self.left and self.kinds == ("setsid",):
            kept = "setsid child left"
        return kept if self.caller_ended else f"{kept}, caller hangs"


def interrupt(holding: Holding, *, patient: bool) -> Aftermath:
    """Interrupt once the whole tree runs, look, clean up. `patient`: see whether the caller ends too."""
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        job = {**holding.job, "script": holding.script, "deadline_s": DEADLINE_S}
        argv = dataclasses.replace(holding.entrant, job=job).argv(Path(home))
        log = Path(home, "contestant.log")
        with log.open("wb") as output:
            caller = subprocess.Popen(
                argv,
                env=environment(Path(home)),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            if not wait_for_tree(holding, caller):
                return Aftermath(0, failed=f"its command did not start: {log.read_text(errors='replace')[-800:]}")
            return watch(holding, caller, patient=patient)
        finally:
            clean_up(holding, caller, home)


def wait_for_tree(holding: Holding, caller: subprocess.Popen[bytes]) -> bool:
    """Wait until all three processes run; False when the caller ended or the bound passed."""
    end = time.monotonic() + START_BOUND_S
    while time.monotonic() < end and caller.poll() is None:
        if len(left_of(holding)) == len(holding.arguments):
            return True
        time.sleep(0.01)
    return False


def watch(holding: Holding, caller: subprocess.Popen[bytes], *, patient: bool) -> Aftermath:
    """Let the event happen and look until the tree is gone or its bound has passed."""
    event = time.monotonic()
    if holding.event == "Ctrl-C":
        os.killpg(caller.pid, signal.SIGINT)
    elif holding.event == "SIGKILL":
        caller.kill()
    elif holding.event == "cut":
        holding.proxy.cut()
    elif holding.event == "cancel" and holding.entrant.script in ENDED_BY_SIGTERM:
        caller.terminate()
    else:
        # The contestant's own clock started before the tree was seen: this is when it is due at the latest.
        event += DEADLINE_S
    end = event + BOUNDS_S[holding.event]
    left = left_of(holding)
    while left and time.monotonic() < end:
        time.sleep(0.01)
        left = left_of(holding)
    seconds = max(0.0, time.monotonic() - event)
    ended = True
    if patient and holding.event == "Ctrl-C":
        try:
            caller.wait(EXIT_BOUND_S)
        except subprocess.TimeoutExpired:
            ended = False
    return Aftermath(len(left), tuple(left), seconds, ended)


def left_of(holding: Holding) -> dict[str, int]:
    """Pids of the command's processes that are alive, by kind."""
    found = {kind: processes_with_argument(argument) for kind, argument in holding.arguments.items()}
    return {kind: pids[0] for kind, pids in found.items() if pids}


def clean_up(holding: Holding, caller: subprocess.Popen[bytes], home: str) -> None:
    """End by pid what is left: the command's processes, the caller, its workers and background masters."""
    doomed = set(left_of(holding).values())
    for process in process_table():
        try:
            words = Path("/proc", str(process.pid), "cmdline").read_bytes()
            in_group = os.getpgid(process.pid) == caller.pid
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        if in_group or home.encode() in words:
            doomed.add(process.pid)
    for pid in doomed - {os.getpid()}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended meanwhile
    caller.wait(EXIT_BOUND_S)
