"""deploy/programs.sh, the lock it installs from, and what install.sh lets root run."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import require

REPOSITORY = Path(__file__).parent.parent.parent
PROGRAMS = REPOSITORY / "deploy" / "programs.sh"
INSTALL = REPOSITORY / "deploy" / "install.sh"


def script(program: Path, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    argv = ["/bin/sh", str(program), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)


def pinned(lock: str) -> dict[str, str]:
    text = (REPOSITORY / "requirements" / lock).read_text()
    return {name_of(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE)}


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_what_is_installed_is_what_is_tested() -> None:
    run, tested = pinned("run.txt"), pinned("dev.txt")
    assert run.items() <= tested.items()


def test_the_lock_has_all_that_the_programs_say_they_need_and_no_test_tools() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["agent"], *extras["bottle"], *extras["docker"]]
    run = pinned("run.txt")
    assert {name_of(each) for each in [*wanted, *project["build-system"]["requires"]]} <= set(run)
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & set(run)


def test_a_dry_run_shows_every_command_and_makes_nothing(tmp_path: Path) -> None:
    done = script(PROGRAMS, "--prefix", f"{tmp_path}/ops", "--dry-run", home=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert sum("--require-hashes" in line for line in shown) == 2
    assert shown[-1] == f"{tmp_path}/ops/bin/opsexec --version"
    assert list(tmp_path.iterdir()) == []
    without = script(PROGRAMS, "--prefix", f"{tmp_path}/ops", "--dry-run", "--without-egress", home=tmp_path).stdout
    assert "egress" not in without


def test_a_directory_of_somebody_else_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "ops" / "venv"
    theirs.mkdir(parents=True)
    done = script(PROGRAMS, "--prefix", f"{tmp_path}/ops", home=tmp_path)
    assert (done.returncode, "not from this script" in done.stderr) == (3, True)
    assert script(PROGRAMS, "--prefix", f"{tmp_path}/ops", "--remove", home=tmp_path).returncode == 0
    assert theirs.is_dir()


def test_what_it_made_is_removed_and_what_is_beside_it_stays(tmp_path: Path) -> None:
    place = tmp_path / "ops"
    for each in ("venv", "venv-egress"):
        (place / each / "bin").mkdir(parents=True)
        (place / each / ".made-by-programs.sh").touch()
    (place / "bin").mkdir()
    for each in ("opsexec", "ops-agent", "bottle"):
        (place / "bin" / each).symlink_to(f"../venv/bin/{each}")
    (place / "bin" / "mine").touch()
    assert script(PROGRAMS, "--prefix", str(place), "--remove", home=tmp_path).returncode == 0
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == ["bin", "bin/mine"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--prefix"], 2, "takes a value"),
        (["--prefix", "ops"], 2, "not absolute"),
        (["--prefix", "/opt/my ops"], 2, "letters, digits"),
        (["--prefix", "/opt/../etc"], 2, "letters, digits"),
        (["--prefix", "/"], 2, "letters, digits"),
        (["--colour"], 2, "unknown option --colour"),
        (["--python", "/bin/false", "--dry-run"], 3, "no Python 3.11"),
    ],
)
def test_it_says_what_it_does_not_take(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    done = script(PROGRAMS, *words, home=tmp_path)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr


def loose_directory(place: Path) -> Path:
    place.chmod(0o777)
    return place / "ops-agent"


def sticky_directory_of_another(place: Path) -> Path:
    place.chmod(0o1755)
    os.chown(place, 65534, 65534)
    return place / "ops-agent"


def sticky_file_that_all_may_write(place: Path) -> Path:
    (place / "ops-agent").chmod(0o1777)
    return place / "ops-agent"


def link_that_others_can_turn(place: Path) -> Path:
    loose = place.with_name("loose")
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "ops-agent").symlink_to(place / "ops-agent")
    return loose / "ops-agent"


def interpreter_that_others_can_change(place: Path) -> Path:
    interpreter = place.with_name("python")
    interpreter.touch()
    os.chown(interpreter, 65534, 65534)
    (place / "ops-agent").write_text(f"#!{interpreter} -I\n")
    return place / "ops-agent"


@pytest.mark.parametrize(
    "arrange",
    [
        loose_directory,
        sticky_directory_of_another,
        sticky_file_that_all_may_write,
        link_that_others_can_turn,
        interpreter_that_others_can_change,
    ],
)
def test_root_is_given_nothing_that_others_can_change(arrange: Callable[[Path], Path], tmp_path: Path) -> None:
    require(os.geteuid() == 0, "files of another user need root")
    place = tmp_path / "place"
    place.mkdir()
    (place / "ops-agent").write_text("#!/bin/sh\n")
    (place / "ops-agent").chmod(0o755)
    words = ["--system", "--manager", "systemd", "--dry-run", "--program"]
    assert script(INSTALL, *words, f"{place}/ops-agent", home=tmp_path).returncode == 0
    done = script(INSTALL, *words, str(arrange(place)), home=tmp_path)
    assert (done.returncode, "must not be what root runs" in done.stderr) == (3, True), done.stderr
