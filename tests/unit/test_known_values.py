"""The secrets' known values: found however they are spelled, in blocks of any size, and nothing else is."""

from __future__ import annotations

import base64
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.sidecars.egress.search import find
from opsexec.far.known_values import KnownValues, Stream, pieces

SECRET = "tok-REAL-0123456789abcdef"


class TestKnownValues:
    values = KnownValues({"TOKEN": SECRET})

    @pytest.mark.parametrize(
        "spelled",
        [
            SECRET,
            SECRET[::-1],
            SECRET.upper(),
            *(base64.b64encode(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(3)),
            base64.urlsafe_b64encode(b"ab" + SECRET.encode()).decode().rstrip("="),
            base64.b64encode(base64.b64encode(SECRET.encode())).decode(),
            *(base64.b32encode(b"x" * n + SECRET.encode()).decode() for n in range(5)),
            base64.b32encode(SECRET.encode()).decode().lower(),
            SECRET.encode().hex(),
            SECRET.encode().hex().upper(),
            SECRET.encode().hex(":"),
            SECRET.encode().hex(" ", 2),
            "".join(f"%{byte:02x}" for byte in SECRET.encode()),
            urllib.parse.quote("".join(f"%{byte:02x}" for byte in SECRET.encode())),
            "".join(f"\\u{byte:04x}" for byte in SECRET.encode()),
            "".join(f"&#{byte};" for byte in SECRET.encode()),
            "".join(f"&#x{byte:02x};" for byte in SECRET.encode()),
            "\u200b".join(SECRET),
            "".join(chr(ord(each) + 0xFEE0) if each.isalnum() else each for each in SECRET),
            " ".join(SECRET),
            "\n".join(SECRET[at : at + 4] for at in range(0, len(SECRET), 4)),
            base64.b64encode(f'{{"a": "{SECRET}"}}'.encode()).decode(),
        ],
    )
    def test_a_secret_is_found_however_it_is_spelled(self, spelled: str) -> None:
        """DL1-DL7, DL11, CR5."""
        assert find(self.values, f"before {spelled} after".encode()) == "TOKEN"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "an ordinary sentence about tokens: sk-ant-api03-AAAABBBBCCCC and AKIAIOSFODNN7EXAMPLE",
            "0x742d35Cc6634C0532925a3b844Bc454e4438f44e bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
            base64.b64encode(bytes(range(256)) * 8).decode(),
            "f" * 4096,
            SECRET[:9],
            '{"sha512": "' + "ab" * 64 + '"}',
        ],
    )
    def test_what_only_looks_like_a_secret_passes(self, text: str) -> None:
        """DL20: nothing is refused for its looks."""
        assert find(self.values, text.encode()) is None

    def test_short_values_are_not_looked_for(self) -> None:
        assert find(KnownValues({"PIN": "1234"}), b"1234") is None

    @given(st.binary(max_size=60), st.binary(max_size=60), st.lists(st.integers(1, 40), max_size=12))
    def test_a_mask_holds_across_every_cut_and_changes_nothing_else(
        self, before: bytes, after: bytes, cuts: list[int]
    ) -> None:
        whole = before + SECRET.encode() + after
        stream = Stream(self.values, mask=True)
        passed = b""
        at = 0
        for size in cuts:
            passed += stream.feed(whole[at : at + size]) if whole[at : at + size] else b""
            at += size
        passed += stream.feed(whole[at:]) if whole[at:] else b""
        passed += stream.feed(b"")
        assert len(passed) == len(whole)
        assert SECRET.encode() not in passed
        assert passed.startswith(before)
        assert passed.endswith(after)

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    def test_no_whole_secret_passes_a_scanned_stream_however_it_is_cut(self, cuts: list[int]) -> None:
        """DL11."""
        whole = b"x" * 20 + base64.b64encode(SECRET.encode()) + b"y" * 40
        stream = Stream(self.values, mask=False)
        passed = b""
        at = 0
        for size in cuts:
            if whole[at : at + size]:
                passed += stream.feed(whole[at : at + size])
            at += size
        if whole[at:]:
            passed += stream.feed(whole[at:])
        passed += stream.feed(b"")
        assert stream.found == "TOKEN"
        assert base64.b64encode(SECRET.encode()).rstrip(b"=") not in passed

    def test_a_stream_isn_t_held_back_for_nothing(self) -> None:
        """A server's event reaches the agent when it is sent, not with the next one."""
        stream = Stream(self.values, mask=True)
        event = b'data: {"delta": "hello"}\n\n'
        assert stream.feed(event) == event


def test_what_a_value_shares_with_others_of_its_kind_is_no_piece_of_it() -> None:
    """A JSON web token's head, an address, a word: only what hardly stands anywhere else is told by a part."""
    token = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib3R0bGUtNzc2NiJ9.x"
    assert pieces(token) == {b"3R0bGUtNzc"}
    assert pieces(b"postgres://app@db.example.com:5432/application") == set()
    assert pieces(b"0123456789abcdef" * 2) != set()
    known = KnownValues({"KEY": "ghq_16C7e42F292c6912E7710c838347Ae178B4a"})
    assert find(known, b"the half 12E7710c838347Ae of it") == "KEY"
    assert find(known, b"8347Ae178B4a") == "KEY"
