from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.errors import UsageError
from opsexec.patterns import NoHostMatches, Pattern


class Host(NamedTuple):
    name: str
    labels: tuple[str, ...] = ()


FLEET = [
    Host("web1", ("web", "dev")),
    Host("web2", ("web", "prod")),
    Host("web3", ("web", "prod")),
    Host("db1", ("db", "prod")),
]


def names(pattern: str) -> list[str]:
    return [host.name for host in Pattern.parse(pattern).select(FLEET)]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("web1", ["web1"]),
        ("web", ["web1", "web2", "web3"]),
        ("all", ["web1", "web2", "web3", "db1"]),
        ("*1", ["web1", "db1"]),
        ("web[23]", ["web2", "web3"]),
        ("web,&prod", ["web2", "web3"]),
        ("&prod", ["web2", "web3", "db1"]),
        ("!db", ["web1", "web2", "web3"]),
        ("web,&prod,!web3", ["web2"]),
        ("db1, web1", ["web1", "db1"]),
    ],
)
def test_a_pattern_selects_in_inventory_order(pattern, chosen):
    assert names(pattern) == chosen


@pytest.mark.parametrize("pattern", ["nope", "web,&nope", "all,!nope", "web,nope", "z*"])
def test_a_term_that_matches_nothing_is_an_error(pattern):
    with pytest.raises(NoHostMatches):
        names(pattern)


def test_a_selection_that_ends_empty_is_an_error():
    with pytest.raises(NoHostMatches, match="selects no host"):
        names("web1,!web1")


@pytest.mark.parametrize("pattern", ["", " ", "web,", "!", "&", ",web"])
def test_an_empty_part_is_an_error(pattern):
    with pytest.raises(UsageError):
        Pattern.parse(pattern)


hosts = st.lists(
    st.builds(Host, st.sampled_from("abcdef"), st.lists(st.sampled_from("xyz"), unique=True).map(tuple)),
    unique_by=lambda h: h.name,
)
terms = st.sampled_from([*"abcdefxyz", "all", "[a-c]"])
patterns = st.lists(st.tuples(st.sampled_from(["", "!", "&"]), terms).map("".join), min_size=1, max_size=5)


def chosen(parts: list[str], fleet: list[Host]) -> set[str]:
    return {host.name for host in Pattern.parse(",".join(parts)).filter(fleet)}


@given(patterns, hosts, st.randoms(use_true_random=False))
def test_the_order_of_terms_never_matters(parts, fleet, random):
    mixed = list(parts)
    random.shuffle(mixed)
    assert chosen(parts, fleet) == chosen(mixed, fleet)


@given(patterns, terms, hosts)
def test_and_and_not_only_ever_narrow(parts, term, fleet):
    assert chosen([*parts, f"&{term}"], fleet) <= chosen(parts, fleet)
    assert chosen([*parts, f"!{term}"], fleet) == chosen(parts, fleet) - chosen([term], fleet)


@given(patterns, terms, hosts)
def test_a_plain_term_is_a_union_within_the_cuts(parts, term, fleet):
    cuts = [part for part in parts if part[0] in "!&"]
    plain = [part for part in parts if part[0] not in "!&"]
    if plain:
        assert chosen([*parts, term], fleet) == chosen(parts, fleet) | chosen([*cuts, term], fleet)


@given(st.text(max_size=40), hosts)
def test_any_text_selects_known_hosts_or_is_a_usage_error(text, fleet):
    try:
        selected = Pattern.parse(text).select(fleet)
    except UsageError:
        return
    assert selected
    assert all(host in fleet for host in selected)


def test_a_pattern_has_a_bound():
    text = ",".join(["web1"] * 819)
    assert Pattern.parse(text + " " * 2).select(FLEET)
    with pytest.raises(UsageError, match="over 4096 characters"):
        Pattern.parse(text + " " * 3)


def test_a_term_may_stand_apart_from_its_sign():
    assert [(term.role, term.text) for term in Pattern.parse(" web , ! web3 ,& prod").terms] == [
        ("add", "web"),
        ("not", "web3"),
        ("and", "prod"),
    ]
