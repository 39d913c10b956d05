"""`python -m demo`: exit code 0 when every claim was observed, 1 when one was not, 3 when it could not run."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

from demo import acts
from demo.ledger import Ledger
from demo.stage import Stage, open_stage
from tests.parts.process_tree import alive
from tests.parts.sshd import SshdFailed, SshdMissing

GONE_S = 3.0
"""Seconds that what the demo started may take to go away once it was told to."""


def main() -> int:
    """Run every act, clean up, and print what was observed."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    begun = time.monotonic()
    see = Ledger()
    try:
        whole = _run(see)
    except (SshdMissing, SshdFailed) as error:
        print(f"demo: it could not run: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("demo: interrupted; its servers and services were ended", file=sys.stderr)
        return 130
    print(f"\n{see.summary()}, in {time.monotonic() - begun:.1f} s", flush=True)
    return 0 if see.ok and whole else 1


def _run(see: Ledger) -> bool:
    """Run the acts; returns whether all of them came to their end."""
    title("Three hosts")
    with open_stage() as stage:
        whole = _acts(stage, see)
        pids = [pid for host in stage.hosts for pid in (host.daemon(), *host.sshd.session_pids()) if pid is not None]
        pids += [host.sshd.process.pid for host in stage.hosts if host.sshd.process is not None]
        places = [stage.directory, *(host.sshd.directory for host in stage.hosts)]
    title("Clean up")
    see.observe("three servers and three services were there to be ended", len(pids) >= 6, True)
    see.observe("none of them runs any more", _left(pids), [])
    see.observe("and no file of the demo is left", [str(place) for place in places if place.exists()], [])
    return whole


def _acts(stage: Stage, see: Ledger) -> bool:
    try:
        acts.three_hosts(stage, see)
        title("A check changes nothing")
        acts.check_mode(stage, see)
        title("A run, and a failure on the way")
        run = acts.failure(stage, see)
        title("Resume after the failure, and approval")
        acts.resume(stage, see, run)
        title("A second run changes nothing")
        acts.second_run(stage, see)
        title("A denied step never reaches its host")
        acts.denied(stage, see)
        title("Where the secret went")
        acts.secret(stage, see)
        title("The audit")
        acts.audit(stage, see)
    except (ValueError, KeyError, OSError) as error:
        print(f"  the demo broke off: {type(error).__name__}: {error}", flush=True)
        return False
    return True


def _left(pids: list[int]) -> list[int]:
    """Return which of the processes still live once they had their time to go."""
    end = time.monotonic() + GONE_S
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]


def title(text: str) -> None:
    """Print the title of an act."""
    print(f"\n== {text}", flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
