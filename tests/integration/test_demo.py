"""`make demo`: every claim it prints is an observation, and what it started is gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.ledger import Ledger
from tests.conftest import require
from tests.integration.conftest import require_sshd
from tests.parts.process_tree import processes_with_argument

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 100
pytestmark = pytest.mark.timeout(DEADLINE_S + 20)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory for everything that a demo puts down, readable by every user; it must be empty at the end."""
    require_sshd()
    with tempfile.TemporaryDirectory(prefix="demo-room-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        yield directory
        assert list(directory.iterdir()) == []


def start(room: Path, *before: str, code: Path = ROOT, python: str = sys.executable) -> subprocess.Popen[str]:
    """Start the demo of `code`, as a person does."""
    path = os.pathsep.join([str(code), str(ROOT), sysconfig.get_path("purelib")])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(room), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*before, python, "-B", "-m", "demo"],
        cwd=code,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> str:
    """Return all that it printed."""
    try:
        return demo.communicate(timeout=DEADLINE_S)[0]
    except BaseException:
        demo.kill()
        demo.wait()
        raise


def unseen(text: str) -> set[str]:
    """The claims that were not observed."""
    return set(re.findall(r"^ *[0-9]+  NO        (.*)", text, re.MULTILINE))


def test_every_claim_of_the_demo_is_observed(room: Path) -> None:
    demo = start(room)
    text = finish(demo)
    assert demo.returncode == 0, text
    counted = re.search(r"^([0-9]+) of ([0-9]+) claims were observed", text, re.MULTILINE)
    assert counted is not None
    assert counted[1] == counted[2] == "46", text


def test_a_demo_whose_claims_are_untrue_says_which_and_fails(room: Path, tmp_path: Path) -> None:
    """Three things are made untrue: what is granted, that prod is gated, that a check of the page changes nothing."""
    shutil.copytree(ROOT / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    mutate(tmp_path / "demo/host.py", '"exec:/usr/bin/uptime",', '"exec:/usr/bin/uptime", "exec:/usr/bin/touch **",')
    mutate(tmp_path / "demo/promote.yaml", ", approve: true", "")
    mutate(tmp_path / "demo/promote.yaml", '    changed_when: "false"\n', "")
    demo = start(room, code=tmp_path)
    text = finish(demo)
    assert demo.returncode == 1, text
    assert unseen(text) >= {
        "the step that no host grants is denied on all three",
        "prod needs a person's yes: the run stops before it with exit code 3",
        "it reports all three hosts as ok, none as changed",
    }, text


def mutate(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} in {file}"
    file.write_text(text.replace(old, new))


def test_the_demo_runs_as_a_plain_user(room: Path, plain_user: str) -> None:
    words = words_of(plain_user)
    require(bool(words), "needs a Python that a plain user may run, with this one's version and libraries")
    *before, python = words
    demo = start(room, *before, python=python)
    text = finish(demo)
    assert demo.returncode == 0, text


def words_of(user: str) -> list[str]:
    """The words that run this project's code as a plain user, the interpreter last; none where nothing does.

    A checkout or an interpreter below root's home can't be reached by anyone else: then the user is lent the right to
    read, and no other.
    """
    lent = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    reading = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *lent, "--"]
    for before in (["runuser", "-u", user, "--"], reading):
        for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
            done = subprocess.run(
                [*before, python, "-c", "import msgspec, asyncssh, ruamel.yaml, demo.stage"],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"},
                cwd="/",
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return [*before, python]
    return []


def test_ctrl_c_ends_the_demo_and_leaves_nothing(room: Path) -> None:
    demo = start(room)
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "$ opsexec run" in line:
                break
        demo.send_signal(signal.SIGINT)
        text = finish(demo)
    finally:
        demo.kill()
    assert demo.returncode == 130, text
    assert "Traceback" not in text
    assert processes_with_argument(str(room)) == []


def test_a_claim_is_seen_only_when_it_was_observed(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger()
    oks = [ledger.ok]
    assert ledger.observe("two hosts", 2, 2)
    oks.append(ledger.ok)
    assert not ledger.observe("a boolean is no count", True, 1)
    oks.append(ledger.ok)
    assert oks == [False, True, False]
    assert "[NOT SEEN] a boolean is no count" in capsys.readouterr().out
    assert ledger.summary().endswith("1 of 2 claims were observed")
