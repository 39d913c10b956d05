"""The bottle's resolver: what it answers, what it doesn't, and what it tells. Pure: no socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bottle.sidecars.dns.answerer import MAX_TOLD, QUESTIONS_AT_ONCE, TOLD_AT_ONCE, Answerer
from bottle.sidecars.dns.message import HEADER, NotAQuery, read_query
from tests.parts.dns_questions import AAAA, AXFR, FORMERR, NOTIMP, NXDOMAIN, REFUSED, TXT, code, question, records

SECRET = "tok-REAL-0123456789abcdef"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock | None = None) -> tuple[Answerer, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    names = {"egress": ["10.9.0.2"], "git-gate": ["10.9.0.2", "fd00::2"]}
    return Answerer("b-1", names, [("API_TOKEN", SECRET)], said.append, clock or Clock()), said


def asked(answerer: Answerer, message: bytes) -> bytes:
    found = answerer.answer(message)
    assert found is not None
    return found


def test_a_sidecar_is_found_in_any_case_and_its_question_comes_back_as_asked() -> None:
    answerer, said = made()
    found = asked(answerer, question("eGReSS"))
    assert code(found) == 0
    assert found.endswith(bytes([10, 9, 0, 2]))
    assert b"\x06eGReSS" in found
    assert said == []


def test_a_kind_that_a_sidecar_has_not_is_an_empty_answer() -> None:
    answerer, _ = made()
    assert (code(asked(answerer, question("egress", AAAA))), records(asked(answerer, question("egress", AAAA)))) == (
        0,
        0,
    )
    assert records(asked(answerer, question("git-gate", AAAA))) == 1
    assert records(asked(answerer, question("egress", TXT))) == 0


def test_every_other_name_is_unknown_and_told_once() -> None:
    answerer, said = made()
    for _ in range(3):
        for name in ("example.com", "egress.example.com", "x.egress", "localhost"):
            assert code(asked(answerer, question(name))) == NXDOMAIN
    assert [event["host"] for event in said] == ["example.com", "egress.example.com", "x.egress", "localhost"]
    assert {event["decision"] for event in said} == {"deny"}


def test_dn2_a_value_in_a_name_is_told_by_its_name_alone() -> None:
    answerer, said = made()
    hexed = SECRET.encode().hex()
    for name in (f"{SECRET}.cdn.test", f"{hexed[:30]}.{hexed[30:]}.cdn.test", f"{SECRET[:9]}.{SECRET[9:]}.cdn.test"):
        assert code(asked(answerer, question(name))) == NXDOMAIN
    text = json.dumps(said).lower()
    assert SECRET.lower() not in text
    assert hexed[:30] not in text
    assert {event["host"] for event in said} == {"(holds the value of API_TOKEN)"}


def test_transfers_and_other_classes_are_refused() -> None:
    answerer, _ = made()
    for kind in (251, AXFR, 253, 254, 255):
        assert code(asked(answerer, question("egress", kind))) == REFUSED
    assert code(asked(answerer, question("egress", group=3))) == REFUSED


def test_an_answer_is_never_answered() -> None:
    answerer, _ = made()
    assert answerer.answer(question("egress", flags=0x8180)) is None
    assert answerer.answer(b"\0" * 11) is None


def test_what_is_no_question_is_answered_with_its_number_alone() -> None:
    answerer, said = made()
    two = bytearray(question("egress"))
    two[5] = 2
    pointer = HEADER.pack(7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"
    long = question(".".join(["a" * 60] * 5))
    for broken in (bytes(two), pointer, long, question("egress")[:-1], question("egress")[:14]):
        assert asked(answerer, broken)[:2] == b"\0\7"
        assert code(asked(answerer, broken)) == FORMERR
        assert len(asked(answerer, broken)) == HEADER.size
    assert code(asked(answerer, question("egress", flags=0x2800))) == NOTIMP
    assert len(said) == 1


def test_lg1_a_name_can_not_break_a_line() -> None:
    answerer, said = made()
    asked(answerer, question('a\n{"event":"ready"}.\x1b[2Jb'))
    assert said[0]["host"] == "a\\010\\123\\034event\\034\\058\\034ready\\034\\125.\\027\\0912jb"


def test_questions_and_lines_are_bounded() -> None:
    clock = Clock()
    answerer, said = made(clock)
    for number in range(int(QUESTIONS_AT_ONCE)):
        assert answerer.answer(question(f"n{number}.test")) is not None
    assert answerer.answer(question("egress")) is None
    assert len(said) == TOLD_AT_ONCE
    clock.now = 3600.0
    asked(answerer, question("later.test"))
    assert said[-1]["left_out"] == QUESTIONS_AT_ONCE - TOLD_AT_ONCE


def test_a_life_has_a_last_line() -> None:
    clock = Clock()
    answerer, said = made(clock)
    for number in range(MAX_TOLD + 50):
        clock.now += 1.0
        asked(answerer, question(f"n{number}.test"))
    assert len(said) == MAX_TOLD
    assert "no further name" in said[-1]["reason"]


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_not_and_never_answered_at_length(data: bytes) -> None:
    answerer, _ = made()
    found = answerer.answer(data)
    assert found is None or len(found) <= max(HEADER.size, len(data) + 16)
    try:
        read_query(data)
    except NotAQuery:
        assert found is None or records(found) == 0
