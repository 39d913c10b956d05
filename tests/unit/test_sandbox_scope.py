"""A sandbox's control group from the user's service manager: whom it asks, what it asks for, and what it believes.

`busctl` is a script that notes its words and moves nobody, and the groups are files: this machine's kernel may have no
version 2 with controllers. What a real systemd made of the same words is in docs/decisions/0090.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec.far.sandbox_scope import HELD_BY, Manager, Scope, better, held, manager

UID = 4321
LIMITS = {"processes": 64.0, "memory": float(1 << 28), "cpus": 1.5}
OWN = f"/user.slice/user-{UID}.slice/user@{UID}.service"


class Login:
    """A plain user's login in a scope of the system's, whose own manager has a bus and controllers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = path / "process"
        self.process.mkdir()
        self.top = path / "top"
        mounted = f"30 20 0:1 / {self.top} rw - cgroup2 cgroup2 rw,nsdelegate"
        (self.process / "mountinfo").write_text(f"22 1 0:2 / / rw - ext4 /dev/sda rw\n{mounted}\n")
        self.is_in(f"/user.slice/user-{UID}.slice/session-1.scope")
        self.given("cpu io memory pids")
        self.runtime = path / "run"
        (self.runtime / str(UID)).mkdir(parents=True)
        self.bus = self.runtime / str(UID) / "bus"
        self.asked = path / "asked"
        self.busctl = path / "busctl"
        self.answers()

    def is_in(self, group: str) -> None:
        (self.process / "cgroup").write_text(f"0::{group}\n")

    def given(self, controllers: str) -> None:
        own = Path(f"{self.top}{OWN}")
        own.mkdir(parents=True, exist_ok=True)
        (own / "cgroup.controllers").write_text(f"{controllers}\n")

    def answers(self, then: str = "true") -> None:
        self.busctl.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{shlex.quote(str(self.asked))}\n{then}\n')
        self.busctl.chmod(0o755)

    def manager(self) -> Manager | None:
        return manager(str(self.process), str(self.runtime), str(self.busctl))

    def scope(self) -> Scope:
        found = self.manager()
        assert found is not None
        return Scope("bot-1.agent", LIMITS, found, str(self.busctl))

    def moves(self, **files: str) -> str:
        """What a manager does: a group with these files, and the process in it."""
        group = f"{OWN}/app.slice/$unit"
        lines = ["for each; do case $each in *.scope) unit=$each ;; esac; done", f'mkdir -p "{self.top}{group}"']
        lines += [f'echo "{text}" >"{self.top}{group}/{name.replace("_", ".")}"' for name, text in files.items()]
        return "\n".join([*lines, f'echo "0::{group}" >{shlex.quote(str(self.process / "cgroup"))}'])


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    made = Login(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: UID)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(made.bus))
        bus.listen()
        lstat = os.lstat

        def as_the_user_s(path: str) -> os.stat_result:
            seen = lstat(path)
            return os.stat_result((*seen[:4], UID, *seen[5:])) if str(path) == str(made.bus) else seen

        monkeypatch.setattr(os, "lstat", as_the_user_s)
        yield made


def test_a_login_whose_manager_has_the_controllers_is_held_by_it(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    found = login.manager()
    assert found is not None
    assert (found.bus, found.mounted, set(found.limits)) == (str(login.bus), str(login.top), set(LIMITS))
    login.given("pids")
    narrow = login.manager()
    assert narrow is not None
    assert narrow.limits == ("processes",)
    login.given("io")
    assert login.manager() is None


@pytest.mark.parametrize("lacks", ["root", "busctl", "a listener", "a socket of the user's", "version 2", "the bus"])
def test_without_one_that_answers_there_is_none(login: Login, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    if lacks == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    elif lacks == "busctl":
        login.busctl.chmod(0o644)
        monkeypatch.setattr(os, "access", lambda path, _mode: path != str(login.busctl))
    elif lacks == "a listener":
        login.bus.unlink()
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(login.bus))
        dead.close()
    elif lacks == "a socket of the user's":
        monkeypatch.setattr(os, "lstat", os.stat)
    elif lacks == "version 2":
        (login.process / "mountinfo").write_text("22 1 0:2 / / rw - ext4 /dev/sda rw\n")
    else:
        login.bus.unlink()
    assert login.manager() is None


def test_it_is_asked_only_for_what_no_group_made_here_would_hold(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    found = login.manager()
    monkeypatch.setattr("opsexec.far.sandbox_scope.manager", lambda _process: found)
    assert better(str(login.process)) is found
    assert held(str(login.process)) == dict.fromkeys(LIMITS, HELD_BY)
    # A terminal of the desktop's is below the user's manager: groups can be made beside it.
    login.is_in(f"{OWN}/app.slice/term.scope")
    beside = Path(f"{login.top}{OWN}/app.slice")
    beside.mkdir()
    (beside / "cgroup.procs").write_text("")
    (beside / "cgroup.subtree_control").write_text("memory pids")
    assert better(str(login.process)) is found  # those hold no processors
    (beside / "cgroup.subtree_control").write_text("cpu memory pids")
    assert better(str(login.process)) is None
    assert set(held(str(login.process)).values()) == {"cgroup v2"}
    (beside / "cgroup.subtree_control").write_text("memory pids")
    assert found is not None
    found.limits = ("cpus",)
    assert better(str(login.process)) is None  # one for the other is no gain


def test_the_scope_is_asked_for_in_the_manager_s_words_and_what_the_kernel_says_is_believed(login: Login) -> None:
    login.answers(login.moves(pids_max="64", memory_max="268435456", cpu_max="150000 100000"))
    scope = login.scope()
    scope.enter(str(login.process))
    assert (scope.held, scope.failed) == (set(LIMITS), "")
    (words,) = login.asked.read_text().splitlines()
    assert words.startswith(f"--address=unix:path={login.bus} --quiet --timeout=5 call org.freedesktop.systemd1 ")
    assert f" StartTransientUnit ssa(sv)a(sa(sv)) opsexec-{os.getpid()}." in words
    assert words.endswith(
        f".bot-1.agent.scope fail 7 PIDs au 1 {os.getpid()} CollectMode s inactive-or-failed TasksMax t 64 "
        "MemoryMax t 268435456 MemorySwapMax t 0 CPUQuotaPerSecUSec t 1500000 OOMPolicy s continue 0"
    )


def test_a_manager_that_knows_no_policy_for_memory_is_asked_without(login: Login) -> None:
    moved = login.moves(pids_max="64", memory_max="268435456", cpu_max="150000 100000")
    login.answers(f'case "$*" in *OOMPolicy*) echo "Cannot set property OOMPolicy" >&2; exit 1 ;; esac\n{moved}')
    scope = login.scope()
    scope.enter(str(login.process))
    assert (scope.held, scope.failed) == (set(LIMITS), "")
    assert len(login.asked.read_text().splitlines()) == 2


@pytest.mark.parametrize("files", [{"pids_max": "max"}, {}], ids=["not set", "not there"])
def test_a_limit_that_the_kernel_does_not_show_is_not_held(login: Login, files: dict[str, str]) -> None:
    login.answers(login.moves(memory_max="268435456", cpu_max="max 100000", **files))
    scope = login.scope()
    scope.enter(str(login.process))
    assert scope.held == {"memory"}
    assert scope.failed == "the scope holds no processes, cpus"


def test_a_manager_that_refuses_is_quoted_and_nothing_is_held(login: Login) -> None:
    login.answers("echo 'Call failed: Access denied' >&2; exit 1")
    scope = login.scope()
    scope.enter(str(login.process))
    assert (scope.held, scope.failed) == (set(), "Call failed: Access denied")


def test_a_manager_that_never_moves_the_process_is_not_waited_for_without_end(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsexec.far.sandbox_scope.ANSWER_S", 0.1)
    scope = login.scope()
    scope.enter(str(login.process))
    assert (scope.held, scope.failed) == (set(), "it was not put into the scope in time")
    login.answers("exec sleep 60")
    scope = login.scope()
    scope.enter(str(login.process))
    assert scope.held == set()
    assert scope.failed == f"{login.busctl} ended with 9"
