"""The `--limit` option, and what a person is told of it."""

from __future__ import annotations

import pytest

from bottle.limits import Limits, held_by, limits, named, size
from opsexec.errors import UsageError


def test_numbers_are_read_with_their_units() -> None:
    found = limits(["memory=1.5g", "cpus=0.5", "processes=64", "home=512M", "files=0"])
    assert found == Limits(processes=64, memory=3 << 29, cpus=0.5, home=512 << 20, files=0)
    assert limits(found.words) == found
    assert limits([]) == Limits()
    assert Limits().words == ()


@pytest.mark.parametrize(
    "word",
    ["memory", "memory=", "memory=-1", "memory=1x", "ram=1g", "processes=1.5", "cpus=99999", "=4", "home=0.0001"],
)
def test_another_word_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        limits([word])


def test_what_holds_a_bound_is_said_and_so_is_what_doesn_t() -> None:
    whole = held_by(Limits(), dict.fromkeys(("processes", "memory", "cpus"), "cgroup v2"), True)
    assert whole == (
        "1024 processes (cgroup v2), 4 GiB memory (cgroup v2), 2 cpus (cgroup v2), "
        "home 16 GiB and 1000000 files (watched), filtered system calls"
    )
    less = held_by(Limits(files=0), {}, False)
    assert "2 cpus (not held here)" in less
    assert "2 cpus (kept to as many whole processors)" in held_by(Limits(), {}, True)
    assert "1024 processes (a limit of the user's)" in held_by(Limits(), {}, True)
    assert "1024 processes (not held here: " in held_by(Limits(), {}, True, root=True)
    assert "no filter of system calls" in less
    assert named(Limits(memory=0, home=0, files=0)) == (
        "1024 processes, memory without a bound, 2 cpus, home without a bound"
    )
    assert [size(each) for each in (1 << 40, 3 << 29, 5, 1 << 20)] == ["1 TiB", "1.5 GiB", "5 bytes", "1 MiB"]
