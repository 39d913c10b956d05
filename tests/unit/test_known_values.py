"""The secrets' known values: found however they are spelled, in blocks of any size, and nothing else is."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import random
import time
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.sidecars.egress.search import find
from opsexec.far.known_values import LONGEST_NUMBER, MIN_BYTES, OVERLAP, KnownValues, Stream, pieces, spellings

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
            *(base64.b85encode(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(4)),
            *(base64.a85encode(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(4)),
            base64.a85encode(SECRET.encode(), adobe=True).decode(),
            *(binascii.b2a_uu(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(3)),
            binascii.b2a_uu(SECRET.encode(), backtick=True).decode(),
            codecs.encode(SECRET, "rot13"),
            str(int.from_bytes(SECRET.encode(), "big")),
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

    @pytest.mark.parametrize(
        ("secret", "spelled"),
        [
            (b"\x86\x4f\xd2\x6f\xb5\x59\xf7\x5b", b"HelloWorld"),  # 32/Z85's own test case
            (b"Hello World!", b"2NEpo7TZRRrLZSi2U"),  # of the draft of base58
        ],
    )
    def test_others_spell_it_like_this(self, secret: bytes, spelled: bytes) -> None:
        assert spelled in spellings(secret)

    @pytest.mark.parametrize(("size", "told"), [(LONGEST_NUMBER, True), (LONGEST_NUMBER + 1, False)])
    def test_a_value_is_one_number_up_to_a_length(self, size: int, told: bool) -> None:
        """Python writes no number of over 4,300 figures, and a long one takes seconds."""
        secret = b"\xa7" * size
        assert (str(int.from_bytes(secret, "big")).encode() in spellings(secret)) is told

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


ODD = 'a/b?>c~d"e\\f-ü/Zq7+'
"""No piece of it is told by itself, and each way to write it differs from the others."""

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": lambda raw: base64.b64encode(raw).rstrip(b"="),
    "base64 url": lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"="),
    "base32": lambda raw: base64.b32encode(raw).rstrip(b"="),
    "base32 lower": lambda raw: base64.b32encode(raw).rstrip(b"=").lower(),
}


def masked(values: KnownValues, text: bytes) -> bytes:
    stream = Stream(values, mask=True)
    return stream.feed(text) + stream.feed(b"")


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_character_of_an_encoded_value_is_masked_that_stands_for_nothing_else(encoding: str, before: int) -> None:
    """Whatever stands before and behind it: those characters are the same beside NULs and beside 255s."""
    encode, raw, known = ENCODINGS[encoding], ODD.encode(), KnownValues({"ODD": ODD})
    assert not pieces(raw)
    low, high = (encode(byte * before + raw + byte * 3) for byte in (b"\0", b"\xff"))
    same = [at for at in range(len(low)) if low[at] == high[at]]
    assert [at for at, byte in enumerate(masked(known, low)) if byte == ord("*")] == same
    assert known.find(b"<" + low + b">") == "ODD"


@pytest.mark.parametrize(
    "spelled",
    [
        ODD.encode(),
        ODD.encode()[::-1],
        ODD.encode().hex().encode(),
        ODD.encode().hex().upper().encode(),
        urllib.parse.quote(ODD).encode(),
        urllib.parse.quote(ODD, safe="").encode(),
        "".join(f"%{byte:02x}" for byte in ODD.encode()).encode(),
        "".join(f"%{byte:02X}" for byte in ODD.encode()).encode(),
        json.dumps(ODD)[1:-1].encode(),
        ODD.encode("utf-16-le"),
        ODD.encode("utf-16-be"),
    ],
)
def test_each_spelling_is_found_and_masked_as_it_stands(spelled: bytes) -> None:
    known = KnownValues({"ODD": ODD})
    assert known.find(b"<" + spelled + b">") == "ODD"
    assert masked(known, b"<" + spelled + b">") == b"<" + b"*" * len(spelled) + b">"
    assert known.find(b"<" + spelled[:-1] + b">") is None


def test_a_value_that_is_no_utf_8_is_found_as_its_bytes() -> None:
    known = KnownValues({"RAW": "\udcff" * MIN_BYTES})
    assert known.find(b"<" + b"\xff" * MIN_BYTES + b">") == "RAW"
    assert known.find(b"anything else") is None


def test_the_shortest_value_that_is_looked_for() -> None:
    assert KnownValues({"A": "k-1_2-34"}).find(b"x k-1_2-34 x") == "A"
    assert not KnownValues({"A": "k-1_2-3"})


def test_a_value_is_scattered_where_only_other_characters_stand_between() -> None:
    known = KnownValues({"A": "zQ7-vT2mX9kLw4RbN"})
    for text in (
        b"zq7vt2m.x9klw4rbn",
        b"z Q/7\xc3\xa9v\x80T2mX9 kL\nw4RbN",
        b"nbr4wlk9xm2tv7qz",
        b"7a 51 372d7654326d58396b4c77345262 4e",
    ):
        assert known.find_scattered(text) == "A", text
    assert known.find_scattered(b"zq7vt2m1x9klw4rbn") is None
    assert KnownValues({"A": "k-1_2-34-5-6-7-8-9-a-b-c-d-"}).find_scattered(b"k123456789abcd") is None


def test_a_piece_is_looked_for_only_of_a_value_of_two() -> None:
    assert pieces(b"a1b2c3d4e5" + b"f6g7h8i9j0") == {b"a1b2c3d4e5", b"f6g7h8i9j0"}
    assert pieces(b"a1b2c3d4e5" + b"f6g7h8i9j") == set()
    assert pieces(b"a1b2c3dddd" + b"a1b2c3cccc") == {b"a1b2c3dddd"}
    assert pieces(b"a1b2c3d4e5" + b"f6g7h8i9j0" + b"k1l2m3n4o") == {b"a1b2c3d4e5", b"f6g7h8i9j0"}
    assert pieces(b"a1b2c3d4e5" + b"host.local" + b"f6g7h8i9j0") == {b"a1b2c3d4e5", b"f6g7h8i9j0"}
    assert pieces(b"1234567890" + b"abcdefghij" + b"a1b2c3-4e5" + b"k1l2m3n4o5") == {b"k1l2m3n4o5"}


class TestStream:
    values = KnownValues({"TOKEN": SECRET})

    def test_a_value_is_found_over_blocks_with_something_between(self) -> None:
        """Each letter in a block of its own; nothing held back is a beginning."""
        stream = Stream(self.values, mask=False)
        for letter in SECRET:
            stream.feed(letter.encode() + b" " * 40)
        assert stream.found == "TOKEN"

    def test_what_has_passed_is_looked_at_again_only_so_far(self) -> None:
        half, other = SECRET[:12].encode() + b" ", SECRET[12:].encode()
        for between, found in ((OVERLAP - len(half), "TOKEN"), (OVERLAP, None)):
            stream = Stream(self.values, mask=False)
            stream.feed(half + b" " * between)
            stream.feed(other)
            assert stream.found == found

    def test_after_a_value_was_found_nothing_passes(self) -> None:
        stream = Stream(self.values, mask=False)
        assert stream.feed(b"before ") == b"before "
        assert stream.feed(SECRET.encode()) == b""
        assert stream.feed(b"after") == stream.feed(b"") == b""
        assert stream.found == "TOKEN"

    @pytest.mark.parametrize("spelled", sorted(KnownValues({"ODD": ODD}).whole))
    def test_no_cut_lets_a_part_of_any_spelling_through(self, spelled: bytes) -> None:
        known, text = KnownValues({"ODD": ODD}), b"<" + spelled[:3] + spelled + b">"
        for cut in range(1, len(text)):
            scanned, stream = Stream(known, mask=False), Stream(known, mask=True)
            passed = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.feed(b"")
            assert passed == b"<" + spelled[:3] + b"*" * len(spelled) + b">"
            passed = scanned.feed(text[:cut]) + scanned.feed(text[cut:]) + scanned.feed(b"")
            assert (b"<" + spelled[:3]).startswith(passed)
            assert scanned.found == "ODD"

    def test_what_was_held_back_passes_at_the_end_and_a_mask_says_that_it_was_needed(self) -> None:
        for mask in (True, False):
            stream = Stream(self.values, mask=mask)
            assert stream.feed(b"a tok-REAL-012") == b"a "
            assert stream.feed(b"") == b"tok-REAL-012"
            assert stream.found is None
        stream = Stream(self.values, mask=True)
        assert stream.feed(f"a {SECRET}\n\n".encode()) == b"a " + b"*" * len(SECRET) + b"\n\n"
        assert stream.found == ""

    def test_as_much_is_held_back_as_could_be_the_beginning_of_a_value(self) -> None:
        known = KnownValues({"ODD": ODD, "TOKEN": SECRET, "LIKE IT": SECRET[:9] + "-another-one"})
        for needle in known.whole[::4]:
            for size in range(len(needle)):
                text = b"x" + needle[: size // 2] + needle[:size]
                held = [at for at in range(1, len(text)) if any(each.startswith(text[-at:]) for each in known.whole)]
                assert known.beginning(text) == max(held, default=0)

    def test_small_blocks_are_read_at_once_beside_many_long_values(self) -> None:
        """An archive of some thousand small files took a hundredth of a second for each of them."""
        noise = random.Random(1)
        known = KnownValues({f"KEY_{at}": noise.randbytes(450).hex() for at in range(20)})
        blocks = [noise.randbytes(1024).hex().encode() for _ in range(600)]
        before = time.process_time()
        for block in blocks:
            Stream(known, mask=False).feed(block)
        assert time.process_time() - before < 3

    def test_without_values_all_passes_at_once(self) -> None:
        for mask in (True, False):
            assert Stream(KnownValues({}), mask=mask).feed(b"tok-") == b"tok-"

    def test_what_is_held_back_beside_many_long_values_is_told_without_a_look_at_each_place(self) -> None:
        noise = random.Random(2)
        known = KnownValues({f"KEY_{at}": noise.randbytes(1200).hex() for at in range(5)})
        blocks = [noise.randbytes(2048).hex().encode() for _ in range(2000)]
        before = time.process_time()
        held = [known.beginning(block) for block in blocks]
        assert time.process_time() - before < 0.3
        assert max(held) < MIN_BYTES

    def test_as_much_is_held_back_beside_many_values_wherever_its_beginning_stands(self) -> None:
        noise = random.Random(3)
        known = KnownValues({f"KEY_{at}": noise.randbytes(noise.randint(4, 60)).hex() for at in range(12)})
        for _ in range(400):
            needle = noise.choice(known.whole)
            text = noise.randbytes(noise.randint(0, 40)) + needle[: noise.randint(0, len(needle) - 1)]
            held = [at for at in range(1, len(text) + 1) if any(each.startswith(text[-at:]) for each in known.whole)]
            assert known.beginning(text) == max(held, default=0)

    def test_the_end_of_a_stream_is_no_second_look_at_what_passed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[bytes] = []
        find = KnownValues.find

        def counted(known: KnownValues, text: bytes) -> str | None:
            looked.append(text)
            return find(known, text)

        monkeypatch.setattr(KnownValues, "find", counted)
        stream = Stream(self.values, mask=False)
        assert stream.feed(b"a tok-REAL-012") + stream.feed(b"") == b"a tok-REAL-012"
        assert looked == [b"a tok-REAL-012"]
