"""Many needles at once are found exactly where each by itself would be, in a fraction of the time."""

from __future__ import annotations

import json
import random
import re
import time

from hypothesis import given
from hypothesis import strategies as st

from opsexec.far import git_views
from opsexec.far.known_values import MIN_BYTES, KnownValues, pieces, spellings
from opsexec.far.needles import Needles

FEW_LETTERS = st.sampled_from([b"a", b"b", b"\0", b"ab", b"aaaaaaaa"])


def one_by_one(pairs: list[tuple[bytes, str]], data: bytes) -> str | None:
    return next((name for needle, name in pairs if needle in data), None)


@st.composite
def haystacks(draw: st.DrawFn) -> tuple[list[tuple[bytes, str]], bytes]:
    """Needles of every length, alike or not, and a text of them, of parts of them and of what is between."""
    some = st.binary(min_size=1, max_size=70) | st.lists(FEW_LETTERS, min_size=1, max_size=40).map(b"".join)
    needles = draw(st.lists(some, min_size=1, max_size=8))
    more = draw(st.sampled_from([0, 60]))  # so that there are enough for their words to be told
    needles += [b"%d-" % at * (1 + at % 9) + b"!" for at in range(more)]
    parts = []
    for needle in draw(st.lists(st.sampled_from(needles), max_size=6)):
        cut = draw(st.integers(0, len(needle)))
        parts += [draw(st.sampled_from([needle, needle, needle[:cut], needle[cut:]])), draw(st.binary(max_size=20))]
    return [(needle, str(at)) for at, needle in enumerate(needles)], b"".join(parts)


@given(haystacks())
def test_the_first_needle_that_stands_there_is_found(case: tuple[list[tuple[bytes, str]], bytes]) -> None:
    pairs, data = case
    assert Needles(pairs).first_in(data) == one_by_one(pairs, data)


@given(
    st.lists(st.text(min_size=MIN_BYTES, max_size=60), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.binary(max_size=300),
    st.binary(max_size=300),
)
def test_a_value_is_found_in_the_spelling_it_stands_in(
    values: list[str], chosen: int, before: bytes, after: bytes
) -> None:
    known = KnownValues({str(at): value for at, value in enumerate(values)})
    secrets = [value.encode("utf-8", "surrogateescape") for value in values]
    pairs = [(each, str(at)) for at, secret in enumerate(secrets) for each in sorted(spellings(secret))]
    pairs += [(each, str(at)) for at, secret in enumerate(secrets) for each in sorted(pieces(secret))]
    data = before + pairs[chosen % len(pairs)][0] + after
    assert known.find(data) == one_by_one(pairs, data) is not None
    assert known.find(before) == one_by_one(pairs, before)


@given(st.lists(st.binary(max_size=40) | st.text("ABCD234 \n", max_size=60).map(str.encode), max_size=8).map(b"".join))
def test_runs_are_told_as_their_forms_tell_them(data: bytes) -> None:
    assert git_views._printable(data) == re.findall(rb"[\x20-\x7e\t\r\n]{10,}", data)
    forms = [form.findall(data) for form in git_views._BASE32]
    runs = [
        [found.group() for found in git_views._each(form, 16, data, table)]
        for form, table in zip(git_views._BASE32, git_views._RUNS32, strict=True)
    ]
    assert runs == forms


def test_thirty_values_cost_little_more_than_one() -> None:
    dice = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    values = {str(at): "".join(dice.choices(letters, k=48)) for at in range(30)}
    words = ["".join(dice.choices(letters[:26], k=dice.randint(2, 10))) for _ in range(1000)]
    body = json.dumps({"text": " ".join(dice.choices(words, k=20_000))}).encode()
    known = KnownValues(values)
    pairs = [(each, name) for name, value in values.items() for each in sorted(spellings(value.encode()))]
    whole, each = [], []
    for _ in range(5):
        begun = time.process_time()
        assert known.find(body) is None
        whole.append(time.process_time() - begun)
        begun = time.process_time()
        assert one_by_one(pairs, body) is None
        each.append(time.process_time() - begun)
    assert min(whole) < min(each) / 3, (min(whole), min(each))
