"""What is kept of runs and terminals goes by who has most of it: a flood of one's own costs nobody else anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.keeping import Kept, surplus


def test_of_one_owner_the_oldest_go() -> None:
    kept = [Kept(f"run-{number}", "a", 10) for number in range(5)]
    assert surplus(kept, 3, 1000) == ["run-4", "run-3"]
    assert surplus(kept, 5, 25) == ["run-4", "run-3", "run-2"]
    assert surplus(kept, 5, 50) == []
    assert surplus(kept, 0, 0) == [f"run-{number}" for number in (4, 3, 2, 1, 0)]


def test_who_makes_many_pushes_out_their_own() -> None:
    flood = [Kept(f"flood-{number}", "a", 1) for number in range(1000)]
    old = [Kept(f"old-{number}", "b", 1) for number in range(3)]
    assert not set(surplus([*flood, *old], 100, 1000)) & {"old-0", "old-1", "old-2"}


def test_who_makes_large_ones_pushes_out_their_own() -> None:
    kept = [*(Kept(f"large-{number}", "a", 100) for number in range(3)), *(Kept(f"b-{n}", "b", 10) for n in range(9))]
    assert surplus(kept, 100, 290) == ["large-2"]


def test_while_there_are_too_many_the_number_counts_and_then_what_each_still_has() -> None:
    kept = [*(Kept(f"large-{n}", "a", 100) for n in range(2)), *(Kept(f"b-{n}", "b", 1) for n in range(9))]
    assert surplus(kept, 10, 1000) == ["b-8"]
    kept = [Kept("a-0", "a", 100), Kept("a-1", "a", 100), Kept("b-0", "b", 80), Kept("b-1", "b", 70)]
    assert surplus(kept, 4, 200) == ["a-1", "b-1"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40),
    st.integers(0, 40),
    st.integers(0, 500),
)
def test_what_is_left_is_within_the_limits_and_nothing_goes_without_need(
    made: list[tuple[str, int]], keep: int, most: int
) -> None:
    kept = [Kept(f"run-{number}", owner, size) for number, (owner, size) in enumerate(made)]
    gone = surplus(kept, keep, most)
    left = [each for each in kept if each.run not in gone]
    assert len(left) <= keep
    assert sum(each.size for each in left) <= most
    assert len(gone) == len(set(gone))
    if gone:
        last = next(each for each in kept if each.run == gone[-1])
        assert len(left) + 1 > keep or sum(each.size for each in left) + last.size > most
