"""An echo of an injected credential in a response's head: masked, also where it is cut over what is read in a row."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bottle.sidecars.egress.heads import Field, masked_head, masked_trailers
from opsexec.far.known_values import KnownValues

TOKEN = b"tok-REAL-0123456789abcdef"
A, B, C = TOKEN[:9], TOKEN[9:17], TOKEN[17:]
KNOWN = KnownValues({"slot": TOKEN.decode()})
DATE = (b"date", b"Sun, 22 Nov 2026 12:00:00 GMT")


def told(fields: list[Field], reason: bytes = b"") -> bytes:
    """All of a head as it goes on."""
    kept, phrase = masked_head(KNOWN, fields, reason)
    return b"|".join([phrase, *(each for field in kept for each in field)])


@pytest.mark.parametrize(
    ("fields", "reason"),
    {
        "whole": ([(b"x", b"Bearer " + TOKEN)], b""),
        "two_values": ([(b"x-a", A), (b"x-b", B + C)], b""),
        "three_values": ([DATE, (b"a", A), (b"b", B), (b"c", C), DATE], b""),
        "name_and_value": ([(TOKEN[:12], TOKEN[12:])], b""),
        "two_names": ([(A, b"1"), (B + C, b"1")], b""),
        "reason": ([(b"x", C)], A + B),
        "others_between": ([(b"x-part", A + B), DATE, (b"x-part", C)], b""),
        "numbered": ([(b"x-part-1", A), DATE, (b"x-part-2", B), (b"etag", b'"1"'), (b"X-Part-10", C)], b""),
        "one_list": ([(b"x", A + b", " + B + b' ; "' + C + b'"')], b""),
        "lists": ([(b"x", b"Bearer " + A + b", " + B), (b"x", C + b", 1")], b""),
        "cookies": ([(b"set-cookie", b"a=" + A + b"; Path=/"), (b"Set-Cookie", b'b="' + B + C + b'"; Secure')], b""),
        "cookie_names": ([(b"set-cookie", A + b"=1"), DATE, (b"set-cookie", B + C + b"=2")], b""),
        "a_cookie_and_its_name": ([(b"set-cookie", A + B + b"=" + C + b"; HttpOnly")], b""),
        "anything_between": ([(b"x-a", b"Bearer " + A), DATE, (b"server", b"nginx"), (b"y", B), DATE, (b"z", C)], b""),
        "settings": ([(b"x", b"auth=" + A + B), DATE, (b"y", b'realm="a"; rest=' + C)], b""),
        "backwards": ([(b"x-a", TOKEN[::-1][:9]), (b"x-b", TOKEN[::-1][9:])], b""),
        "hex": ([(b"x-a", TOKEN.hex()[:9].encode()), (b"x-b", TOKEN.hex()[9:].encode())], b""),
    }.values(),
    ids=lambda each: None,
)
def test_a_value_that_is_cut_over_a_head_is_masked(fields: list[Field], reason: bytes) -> None:
    said = told(fields, reason)
    for piece in (A, B, C, TOKEN[:12], TOKEN[12:], TOKEN.hex()[9:].encode(), TOKEN[::-1][9:]):
        assert piece not in said
    assert len(said) == len(b"|".join([reason, *(each for field in fields for each in field)]))


def test_what_is_no_echo_stays_as_it_is() -> None:
    fields = [DATE, (b"x-part", A), DATE, (b"content-type", b"text/html"), (b"set-cookie", b"a=1; Path=/"), (b"x", C)]
    assert masked_head(KNOWN, fields, b"OK") == (fields, b"OK")
    assert masked_head(KnownValues({}), [(b"x", TOKEN)], b"OK") == ([(b"x", TOKEN)], b"OK")
    assert masked_head(KNOWN, []) == ([], b"")


def test_trailers_are_read_behind_the_head_that_has_been_sent() -> None:
    assert masked_trailers(KNOWN, [DATE, (b"x-a", A)], [(b"x-b", B + C), (b"x-c", b"1")]) == [
        (b"x-b", b"*" * len(B + C)),
        (b"x-c", b"1"),
    ]
    assert masked_trailers(KNOWN, [DATE], [(b"x", TOKEN)]) == [(b"x", b"*" * len(TOKEN))]


@settings(max_examples=100, deadline=None)
@given(some.lists(some.integers(0, len(TOKEN)), min_size=1, max_size=8), some.booleans())
def test_no_cut_of_a_value_lets_it_through(cuts: list[int], with_others: bool) -> None:
    at = [0, *sorted(cuts), len(TOKEN)]
    fields = []
    for number, (begin, end) in enumerate(pairwise(at)):
        fields.append((b"x-%d" % number, TOKEN[begin:end]))
        if with_others:
            fields.append(DATE)
    kept, _ = masked_head(KNOWN, fields)
    assert b"".join(value for name, value in kept if name.startswith(b"x-")) == b"*" * len(TOKEN)


def test_every_echo_of_several_is_masked_however_they_are_mixed() -> None:
    pieces = [A, A, b"none", B, B, A + B, C, b"none", C, C]
    kept, _ = masked_head(KNOWN, [(b"x-" + b"abcdefghij"[at : at + 1], piece) for at, piece in enumerate(pieces)])
    assert [value for _, value in kept if value.strip(b"*")] == [b"none", b"none"]


@pytest.mark.parametrize("piece", [TOKEN[:8], TOKEN[:3], b"a"])
def test_the_largest_head_there_is_is_read_in_bounded_time(piece: bytes) -> None:
    fields = [(b"x-%d" % number, piece) for number in range(8000)]
    begun = time.process_time()
    assert masked_head(KNOWN, fields)[0] == fields
    assert time.process_time() - begun < 10


TWOS = [TOKEN[at : at + 2] for at in range(0, len(TOKEN), 2)]
COMMAS = b"tok,REAL;0123 456789,abcdef"


@pytest.mark.parametrize(
    "fields",
    [
        [field for at, two in enumerate(TWOS) for field in ((b"X-Part-%d" % at, two), (b"x" * (at + 1), b"nginx"))],
        [field for two in TWOS for field in ((b"SET-COOKIE", b"a=" + two + b"; Path=/"), DATE)],
        [field for two in TWOS for field in ((b"Set-Cookie", two + b"=1; Path=/"), DATE)],
    ],
    ids=["numbered", "cookies", "cookies' names"],
)
def test_pieces_of_two_bytes_are_told_where_fields_are_alike(fields: list[Field]) -> None:
    said = told(fields)
    assert not any(two in said.replace(DATE[1], b"") for two in TWOS[:2])


def test_a_value_with_commas_and_spaces_in_it_is_masked_across_fields() -> None:
    known = KnownValues({"slot": COMMAS.decode()})
    kept, _ = masked_head(known, [(b"x-a", COMMAS[:9]), (b"x-b", COMMAS[9:])])
    assert kept == [(b"x-a", b"*" * 9), (b"x-b", b"*" * len(COMMAS[9:]))]
