"""A bottle's life, by the attack's id: killed, resumed, changed between being shown and being started, poisoned."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.audit import verify
from tests.conftest import require
from tests.integration.cli_terminal import on_terminal
from tests.parts.bottle_backends import Name, Scene, scene
from tests.parts.bottle_running import HELD, TOKEN, Bottles, gone, written_with

BOTTLE = """env:
  MODE: fast
egress:
  routes:
    - host: open.test
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""


@pytest.fixture(scope="module")
def backend() -> Name:
    """Where the bottles of a file live."""
    return "bwrap"


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, backend: Name, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(request, backend, tmp_path_factory.mktemp("upstream"), ("open.test",)) as made:
        yield made


@pytest.fixture
def bottles(stage: Scene, tmp_path: Path) -> Bottles:
    found = stage.bottles(tmp_path / "home", dev=BOTTLE)
    found.root.agent("worker", "bottle: dev\n", "Work.\n")
    return found


@pytest.fixture
def bottle(stage: Scene) -> str:
    """The front matter that every one of them begins with."""
    return stage.bottle(BOTTLE)


MOMENTS = ["base.jsonl", "bundle/routes.json", "doors/egress.sock"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_lc1_a_launcher_killed_at_any_moment_leaves_no_process_and_no_credential(
    bottles: Bottles, bottle: str, moment: str, tmp_path: Path
) -> None:
    bottles.root.bottle("dev", bottle.replace("MODE: fast", "HELD: ${MY_HELD}").replace(
        "      pipelock", "      auth: {scheme: Bearer, token_ref: API_TOKEN}\n      pipelock"))  # fmt: skip
    bottles.cwd = tmp_path / "project"
    bottles.cwd.mkdir()
    (bottles.cwd / "file").write_text("x")
    argv = bottles.start_argv("worker", ["/bin/sleep", "600"], "--cwd")
    launcher = subprocess.Popen(argv, env=bottles.environ(), cwd=bottles.cwd, stdout=-1, stderr=-1, text=True)
    state = bottles.root.path / "state"
    end = time.monotonic() + 40
    while not (found := list(state.glob(f"*/{moment}"))):  # no pause: the moment is short
        assert time.monotonic() < end
        assert launcher.poll() is None
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=10)
    identity = str(found[0].relative_to(state)).partition("/")[0]
    gone(identity.encode())
    for text in (TOKEN, HELD, "PRIVATE KEY"):
        assert written_with(bottles.root.path, text.encode()) == []
    (row,) = json.loads(bottles.command("list", "--all", "--json").stdout)["bottles"]
    assert (row["identity"], row["state"] in ("left behind", "stopped", "unreadable")) == (identity, True)
    assert bottles.command("cleanup", "--all").returncode == 0
    assert list(state.iterdir()) == []


def test_lc3_a_resume_shows_what_of_the_manifests_is_another_by_now(bottles: Bottles, bottle: str) -> None:
    identity = bottles.run("worker", ["/bin/true"]).identity
    same = bottles.command("resume", identity, "-y", *bottles.reaching())
    assert "since it ran" not in same.stderr
    bottles.root.bottle(
        "dev", bottle.replace("MODE: fast", "MODE: slow").replace("host: open.test", "host: other.test")
    )
    bottles.root.agent("worker", "bottle: dev\n", "Do something else.\n")
    again = bottles.command("resume", identity, "-y", *bottles.reaching())
    told = [line.partition("since it ran: ")[2] for line in again.stderr.splitlines() if "since it ran: " in line]
    assert {line[:14].strip() for line in told} == {
        "- egress",
        "+ egress",
        "- env value",
        "+ env value",
        "- prompt",
        "+ prompt",
    }
    assert any("other.test" in line for line in told if line.startswith("+"))


POISON = """
import os
def leads(name, target):
    path = os.path.join('/home/agent', name)
    os.path.lexists(path) and os.rename(path, path + '.mine')
    os.symlink(target, path)
leads('.gitconfig', '{victim}')
leads('.claude', '../bundle')
leads('skills', '{tree}')
os.mkdir('/home/agent/kept')
"""


def test_lc4_ws1_a_resume_doesn_t_write_through_what_the_agent_left(
    bottles: Bottles, bottle: str, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("the host's\n")
    skill = bottles.root.path / "skills" / "review"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("Look twice.\n")
    bottles.root.bottle("dev", bottle + "git-gate:\n  user: {name: A, email: a@b}\n")
    bottles.root.agent("worker", "bottle: dev\nskills: [review]\n")
    script = POISON.format(victim=victim, tree=tree)
    ended = bottles.run(
        "worker", ["/usr/bin/python3", "-c", f"import os\nif not os.path.exists('kept'):\n exec({script!r})"]
    )
    assert ended.code == 0, ended.stderr
    again = bottles.command("resume", ended.identity, "-y", *bottles.reaching())
    assert again.returncode == 0, again.stderr
    assert "~/.gitconfig was a link of the agent's" in again.stderr
    assert victim.read_text() == "the host's\n"
    assert list(tree.iterdir()) == []
    state = bottles.state(ended.identity)
    assert (state / "home" / "kept").is_dir()
    assert (state / "home" / "skills" / "review" / "SKILL.md").read_text() == "Look twice.\n"
    assert not (state / "home" / ".gitconfig").is_symlink()


def test_lc8_a_backend_that_hangs_doesn_t_hold_up_the_list(bottles: Bottles, tmp_path: Path) -> None:
    path = f"/tmp/hung-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)  # the kernel takes connections, and nobody ever answers
        try:
            bottles.env["DOCKER_HOST"] = f"unix://{path}"
            begun = time.monotonic()
            assert bottles.command("list", "--all", "--json").returncode == 0
            assert time.monotonic() - begun < 20
        finally:
            os.unlink(path)


def test_lc10_a_lock_whose_holder_is_gone_holds_nobody_up(bottles: Bottles, bottle: str) -> None:
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate(timeout=10)
    gone(row["identity"].encode())
    state = bottles.state(row["identity"])
    assert (state / "lock").exists()
    assert (state / "control.sock").exists()
    assert "isn't running" in bottles.command("exec", row["identity"], "--", "/bin/true").stderr
    assert bottles.command("stop", row["identity"]).stdout == f"{row['identity']} was not running\n"
    assert verify(state / "audit.jsonl").ok
    bottles.root.bottle("dev", bottle)
    resumed = subprocess.Popen(
        bottles.argv("resume", row["identity"], "-y", *bottles.reaching()),
        env=bottles.environ(), cwd=bottles.cwd, stdout=-1, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert resumed.stderr is not None
    assert any(" is running" in line for line in iter(resumed.stderr.readline, ""))
    assert bottles.command("stop", row["identity"]).returncode == 0
    resumed.communicate(timeout=20)


def test_mf9_what_was_shown_is_what_runs_though_the_manifest_changed_at_the_question(
    bottles: Bottles, bottle: str, tmp_path: Path
) -> None:
    script = "echo $MODE; env | grep -c other"
    argv = bottles.argv(
        "start", "worker", "--backend", bottles.backend, *bottles.reaching(), "--no-tty", "--", "/bin/sh", "-c", script
    )
    with on_terminal(argv, cwd=tmp_path, env=bottles.environ()) as person:
        shown = person.sees(r"plan +sha256:([0-9a-f]{64})")[1].decode()
        person.sees(r"start it\? \[y/N\]")
        bottles.root.bottle("dev", bottle.replace("MODE: fast", "MODE: other"))
        person.types("y\n")
        person.sees(r"fast\r\n0\r\n")
        person.leaves(40)
    (state,) = (bottles.root.path / "state").iterdir()
    assert json.loads((state / "metadata.json").read_text())["digest"] == shown


def test_mf9_a_skill_that_changed_at_the_question_doesn_t_start(bottles: Bottles, tmp_path: Path) -> None:
    skill = bottles.root.path / "skills" / "review"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("Look twice.\n")
    bottles.root.agent("worker", "bottle: dev\nskills: [review]\n")
    argv = bottles.argv(
        "start", "worker", "--backend", bottles.backend, *bottles.reaching(), "--no-tty", "--", "/bin/true"
    )
    with on_terminal(argv, cwd=tmp_path, env=bottles.environ()) as person:
        person.sees(r"skill +review from ")
        person.sees(r"start it\? \[y/N\]")
        (skill / "SKILL.md").write_text("Look away.\n")
        person.types("y\n")
        person.sees("the skill review changed since it was shown")
        assert person.leaves() == 1


BAD_SKILLS = {
    "a link out": lambda place: (place / "x").symlink_to("/etc/shadow"),
    "a link up": lambda place: (place / "x").symlink_to("../../agents"),
    "a fifo": lambda place: os.mkfifo(place / "x"),
    "too large": lambda place: _sparse(place / "x"),
    "others may write it": lambda place: place.chmod(0o777),
    "others may write a file of it": lambda place: _made(place / "x", 0o666),
    "others may write beside it": lambda place: place.parent.chmod(0o777),
    "it is somebody else's": lambda place: _given_away(place),
}


def _made(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)


def _given_away(path: Path) -> None:
    require(os.geteuid() == 0, "needs root, to give a directory away")
    os.chown(path, 65534, -1)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("what", BAD_SKILLS)
def test_ws1_a_skill_that_isn_t_fit_to_be_copied_starts_nothing(bottles: Bottles, what: str) -> None:
    skill = bottles.root.path / "skills" / "review"
    skill.mkdir(parents=True)
    BAD_SKILLS[what](skill)
    bottles.root.agent("worker", "bottle: dev\nskills: [review]\n")
    ended = bottles.run("worker", ["/bin/true"])
    assert (ended.code, "the skill review" in ended.stderr, ended.identity) == (2, True, "")


def test_a_skill_is_where_the_agent_looks_and_nothing_of_the_operator_s_changes(bottles: Bottles) -> None:
    skill = bottles.root.path / "skills" / "review"
    (skill / "scripts").mkdir(parents=True)
    (skill / "SKILL.md").write_text("Look twice.\n")
    (skill / "scripts" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (skill / "scripts" / "run.sh").chmod(0o755)
    bottles.root.agent("worker", "bottle: dev\nskills: [review]\n")
    script = "cat ~/skills/review/SKILL.md; ~/skills/review/scripts/run.sh; echo evil > ~/skills/review/SKILL.md"
    ended = bottles.run("worker", ["/bin/sh", "-c", script])
    assert (ended.code, ended.stdout) == (0, "Look twice.\nran\n"), ended.stderr
    assert (skill / "SKILL.md").read_text() == "Look twice.\n"
    again = bottles.command("resume", ended.identity, "-y", *bottles.reaching())
    assert again.stdout == "Look twice.\nran\n", again.stderr
    bottles.root.agent("worker", "bottle: dev\nskills: [absent]\n")
    missing = bottles.run("worker", ["/bin/true"])
    assert (missing.code, "there is no skill 'absent'" in missing.stderr) == (2, True)
