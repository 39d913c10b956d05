"""Where a sandbox's control group is made, on file systems that only look like the kernel's; the kernel's own are
asked in tests/integration/test_bottle_limits.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsexec.far.sandbox_groups import PREFIX, Groups, groups_hold, is_root, parents

FILES = (
    "cgroup.procs", "pids.max", "memory.max", "memory.swap.max", "cpu.max",
    "memory.limit_in_bytes", "cpu.cfs_period_us", "cpu.cfs_quota_us",
)  # fmt: skip


class Machine:
    """A process's view of its groups: `process` stands for /proc/self."""

    def __init__(self, path: Path, memberships: str, mounts: list[tuple[str, str, str, str]]) -> None:
        self.path = path
        self.process = path / "process"
        self.process.mkdir()
        (self.process / "cgroup").write_text(memberships)
        lines = [
            f"30 20 0:1 {root} {path / place} rw,relatime shared:1 - {kind} {kind} {options}"
            for place, root, kind, options in mounts
        ]
        (self.process / "mountinfo").write_text("\n".join(["22 1 0:2 / / rw - ext4 /dev/sda rw", *lines]) + "\n")

    def group(self, path: str, given: str = "") -> Path:
        """A directory that is a group; `given`: the controllers it gives its children."""
        directory = self.path / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text("")
        (directory / "cgroup.subtree_control").write_text(given)
        return directory


def unified(path: Path) -> Machine:
    """A user's session under systemd, version 2: its slice is delegated, the session's own scope is full."""
    machine = Machine(path, "0::/user.slice/app.slice/term.scope\n", [("top", "/", "cgroup2", "rw,nsdelegate")])
    for name, given in (("", "cpu memory pids"), ("/user.slice", "memory pids"), ("/user.slice/app.slice", "memory")):
        machine.group("top" + name, given)
    machine.group("top/user.slice/app.slice/term.scope", "")
    return machine


def test_in_version_2_it_is_made_where_children_get_most_of_what_is_wanted(tmp_path: Path) -> None:
    machine = unified(tmp_path)
    (found,) = parents(str(machine.process))
    assert (found.path, found.version) == (str(tmp_path / "top"), 2)
    assert groups_hold(str(machine.process)) == dict.fromkeys(("processes", "memory", "cpus"), "cgroup v2")


@pytest.mark.parametrize(("kind", "limits"), [("", ["cpus", "processes"]), ("domain", [])])
def test_in_version_2_the_machine_s_topmost_group_has_children_though_it_holds_processes(
    tmp_path: Path, kind: str, limits: list[str]
) -> None:
    """As without a service manager. A group with a type is another one, which a container sees as its topmost."""
    machine = Machine(tmp_path, "0::/\n", [("top", "/", "cgroup2", "rw")])
    place = machine.group("top", "cpu pids")
    if kind:
        (place / "cgroup.type").write_text(kind)
    assert sorted(groups_hold(str(machine.process))) == limits


@pytest.mark.parametrize(
    ("uid", "mapped", "root"),
    [(0, "0 0 4294967295", True), (0, "0 100000 65536", False), (1000, "0 0 4294967295", False), (0, "", False)],
)
def test_whose_processes_no_limit_of_a_user_s_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, mapped: str, root: bool
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    (tmp_path / "uid_map").write_text(f"   {mapped}\n" if mapped else "")
    assert is_root(str(tmp_path)) == root


def test_in_version_1_each_limit_is_in_its_hierarchy_beside_our_own_group(tmp_path: Path) -> None:
    memberships = "8:pids:/\n4:memory:/box/abc\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n"
    mounts = [
        ("pids", "/", "cgroup", "rw,pids"),
        ("memory", "/box", "cgroup", "rw,memory"),  # a container sees its own part alone
        ("cpu", "/", "cgroup", "rw,cpu,cpuacct"),
        ("unified", "/", "cgroup2", "rw"),
    ]
    machine = Machine(tmp_path, memberships, mounts)
    for name in ("pids", "memory/abc", "cpu", "unified"):
        machine.group(name)
    found = {limit: each.path for each in parents(str(machine.process)) for limit in each.limits}
    assert found == {
        "processes": str(tmp_path / "pids"),
        "memory": str(tmp_path / "memory/abc"),
        "cpus": str(tmp_path / "cpu"),
    }
    assert set(groups_hold(str(machine.process)).values()) == {"cgroup v1"}


def test_what_no_group_can_be_made_for_isn_t_held(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/\n", [])
    assert groups_hold(str(machine.process)) == {}
    assert Groups("x", {"processes": 10}, str(machine.process)).held == set()


def test_settings_are_in_the_kernel_s_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = unified(tmp_path)
    made: list[Path] = []
    mkdir = os.mkdir

    def with_files(path: str, mode: int) -> None:
        """What the kernel does: a new group comes with its files."""
        mkdir(path, mode)
        made.append(Path(path))
        for name in FILES:
            (Path(path) / name).write_text("")

    monkeypatch.setattr(os, "mkdir", with_files)
    groups = Groups("bot-1.agent", {"processes": 64, "memory": 1 << 28, "cpus": 1.5}, str(machine.process))
    assert groups.held == {"processes", "memory", "cpus"}
    (place,) = made
    assert place.name.startswith(f"{PREFIX}{os.getpid()}.")
    written = {name: (place / name).read_text() for name in FILES if (place / name).read_text()}
    assert written == {
        "pids.max": "64", "memory.max": str(1 << 28), "memory.swap.max": "0", "cpu.max": "150000 100000",
    }  # fmt: skip
    groups.enter()
    assert (place / "cgroup.procs").read_text() == "0"


def test_a_group_whose_maker_is_gone_is_taken_away_and_a_living_one_is_not(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "8:pids:/\n", [("pids", "/", "cgroup", "rw,pids")])
    top = machine.group("pids")
    gone, living = top / f"{PREFIX}{os.getpid()}.1.old", top / f"{PREFIX}1.{_began(1)}.other"
    for each in (gone, living):
        each.mkdir()
    with pytest.raises(FileNotFoundError):  # a directory that isn't the kernel's has no pids.max
        Groups("new", {"processes": 5}, str(machine.process))
    assert not gone.exists()
    assert living.exists()


def _began(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rfind(")") + 2 :].split()[19]
