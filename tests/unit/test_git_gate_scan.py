"""The scan's own library: what it sees through, what it leaves alone, and that its bounds refuse instead of passing."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsexec.far import git_policy, git_tokens, git_views
from opsexec.far.git_archives import Budget, members
from opsexec.far.git_objects import Change, tree_entries
from opsexec.far.git_run import Refused, said
from opsexec.far.git_scan import Examination
from opsexec.far.known_values import KnownValues

SECRET = "Zq7vT2mX9kLw4RbN8sYc"
LONG = "a7Fq-Zt29_pLx8Vw3Kd0RmN5bYc6Hs1Ju4Ge"
TOKEN = b"ghp_" + b"A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


def examine(data: bytes, values: dict[str, str] | None = None) -> str | None:
    known = KnownValues({"API_KEY": SECRET, "LONG": LONG} if values is None else values)
    return Examination(known, lambda label, text: None).examine("x", data)


SPELLED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda raw: raw,
    "reversed": lambda raw: raw[::-1],
    "base64": base64.b64encode,
    "base64 inside": lambda raw: base64.b64encode(b"user:" + raw + b":x"),
    "base64 url": lambda raw: base64.urlsafe_b64encode(b"\xff\xfe" + raw),
    "base64 lines": lambda raw: base64.encodebytes(b"n" * 70 + raw + b"n" * 70),
    "base64 literals": lambda raw: b'"' + base64.b64encode(raw)[:16] + b'" +\n "' + base64.b64encode(raw)[16:] + b'"',
    "base64 four times": lambda raw: base64.b64encode(base64.b64encode(base64.b64encode(base64.b64encode(raw)))),
    "base32": base64.b32encode,
    "base32 lower": lambda raw: base64.b32encode(raw).lower(),
    "hex": lambda raw: raw.hex().encode(),
    "hex upper, spaced": lambda raw: raw.hex(" ").upper().encode(),
    "0x list": lambda raw: ", ".join(f"0x{byte:02x}" for byte in raw).encode(),
    "numbers": lambda raw: ", ".join(str(byte) for byte in raw).encode(),
    "url": lambda raw: "".join(f"%{byte:02x}" for byte in raw).encode(),
    "\\u": lambda raw: "".join(f"\\u{byte:04x}" for byte in raw).encode(),
    "\\u{}": lambda raw: "".join(f"\\u{{{byte:x}}}" for byte in raw).encode(),
    "\\x": lambda raw: "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    "&#": lambda raw: "".join(f"&#{byte};" for byte in raw).encode(),
    "&#x": lambda raw: "".join(f"&#x{byte:02x};" for byte in raw).encode(),
    "octal": lambda raw: "".join(f"\\{byte:03o}" for byte in raw).encode(),
    "quoted printable": lambda raw: "".join(f"={byte:02X}" for byte in raw).encode(),
    "a soft line break": lambda raw: raw[:9] + b"=\r\n" + raw[9:],
    "rotated": lambda raw: raw.translate(git_views._ROT13),
    "behind a NUL": lambda raw: b"\0\1" + raw,
    "utf-16": lambda raw: raw.decode().encode("utf-16-be"),
    "utf-16 in base64": lambda raw: base64.b64encode(raw.decode().encode("utf-16-le")),
    "full width": lambda raw: "".join(chr(byte + 0xFEE0) if byte > 32 else " " for byte in raw).encode(),
    "combining": lambda raw: "\u0301".join(raw.decode()).encode(),
    "spaced": lambda raw: b" ".join(bytes([byte]) for byte in raw),
    "a letter a line": lambda raw: b"\n".join(bytes([byte]) for byte in raw),
    "gzip": gzip.compress,
    "gzip in base64": lambda raw: base64.b64encode(gzip.compress(b"-" * 30 + raw)),
    "zlib": zlib.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "a zip behind a picture": lambda raw: b"\x89PNG\r\n" + b"\1" * 500 + _zip("a", raw),
}


def _zip(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("spelling", SPELLED)
@pytest.mark.parametrize("value", [SECRET, LONG])
def test_a_known_value_is_seen_in_every_spelling(spelling: str, value: str) -> None:
    found = examine(b"some text before\n" * 3 * (spelling == "plain") + SPELLED[spelling](value.encode()))
    assert found is not None
    assert value not in found
    assert "of this bottle" in found


def test_half_of_a_long_value_is_seen() -> None:
    assert examine(f"part = '{LONG[10:32]}'".encode()) is not None


@pytest.mark.parametrize("between", [b"\1", b"\xff", b"\n\0\1"])
def test_a_value_with_other_characters_between_is_seen_behind_a_nul_too(between: bytes) -> None:
    """Of what isn't text, stretches too short to be some were left out before a value was put together."""
    pieces = between.join(SECRET.encode()[at : at + 7] for at in range(0, len(SECRET), 7))
    assert "spread out" in str(examine(b"say " + pieces))
    assert "spread out" in str(examine(b"\0say " + pieces))


def test_a_value_with_some_threes_of_its_own_is_seen_in_hex_of_hex() -> None:
    value = "kX9-Qr3333tZp-w"
    hidden = value.encode().hex().encode().hex().encode()
    for others in (b"", b"3" * 30, b"3" * 400):
        assert "it holds V" in str(examine(others + b"\n" + hidden + b"\n" + others, {"V": value}))


@pytest.mark.parametrize("spelling", sorted(SPELLED.keys() - {"spaced"}))
def test_a_credential_that_nobody_told_of_is_seen_in_every_spelling_but_one(spelling: str) -> None:
    found = examine(SPELLED[spelling](TOKEN), values={})
    assert found is not None
    assert "it holds a credential (github token)" in found


def _body(length: int, letters: str = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0") -> bytes:
    return (letters * (length // len(letters) + 1))[:length].encode()


UPPER = "A2B7C3D6E5F4G2H3I4J5K6"

CREDENTIALS: dict[bytes, bytes] = {
    **{prefix: prefix + _body(36) for prefix in (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"npm_")},
    b"github_pat_": b"github_pat_" + _body(60),
    b"glpat-": b"glpat-" + _body(20),
    b"AKIA": b"AKIA" + _body(16, UPPER),
    b"ASIA": b"ASIA" + _body(16, UPPER),
    b"sk-ant-": b"sk-ant-" + _body(32),
    b"sk-proj-": b"sk-proj-" + _body(32),
    b"T3BlbkFJ": b"sk-" + _body(16) + b"T3BlbkFJ" + _body(16),
    b"xox": b"xoxb-" + _body(20),
    b"AIza": b"AIza" + _body(35),
    b"pypi-AgE": b"pypi-AgE" + _body(50),
    b"k_live_": b"sk_live_" + _body(20),
    b"SG.": b"SG." + _body(22) + b"." + _body(43),
    b"dop_v1_": b"dop_v1_" + _body(64, "0a1b2c3d4e5f6789"),
    b"hf_": b"hf_" + _body(34),
    b"AGE-SECRET-KEY-1": b"AGE-SECRET-KEY-1" + _body(50, UPPER),
    b"PRIVATE KEY-----": b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.b64encode(bytes(range(100, 130))),
    b"PuTTY-User-Key-File": b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines",
}
"""The shortest of each form, by the characters that it is looked for by."""


def test_there_is_a_credential_of_each_form() -> None:
    assert {literal for _, literal, _ in git_tokens.RULES} == CREDENTIALS.keys()


@pytest.mark.parametrize("literal", CREDENTIALS)
def test_credentials_are_told_by_their_form(literal: bytes) -> None:
    """Wherever they stand: also behind a name of the same form that is none, and far into a file."""
    (kind,) = {name for name, each, _ in git_tokens.RULES if each == literal}
    whole = CREDENTIALS[literal]
    assert git_tokens.find(whole) == kind
    far = b"\n" + b"-" * 2000 + b"\n"
    assert git_tokens.find(literal + b" is how they begin" + far + whole + far + literal) == kind
    assert git_tokens.find(whole[:-1]) is None


@pytest.mark.parametrize(
    "text",
    [
        b"ghp_" + b"x" * 36 + b"\n" + TOKEN,
        b"AKIAIOSFODNN7EXAMPLE AKIAQ7ZLM3N5R2TV6WXY",
        b"sk-ant-xxxxxxxx-" + b"y" * 40 + b"-" + CREDENTIALS[b"sk-ant-"],
        b"sk-your-api-key-" + CREDENTIALS[b"T3BlbkFJ"],
    ],
)
def test_a_placeholder_hides_no_credential_behind_it(text: bytes) -> None:
    """What is looked at around each literal begins before it, where the placeholder is."""
    assert git_tokens.find(text) is not None


@pytest.mark.parametrize(("distinct", "told"), [(9, None), (10, "github token")])
def test_what_repeats_itself_is_a_placeholder(distinct: int, told: str | None) -> None:
    letters = "ghp_QRSTUVW"[:distinct]
    assert git_tokens.find(b"ghp_" + _body(36, letters.replace("_", ""))) == told


BENIGN = {
    "prose": b"The ghp_ prefix marks a personal token; see AKIA keys and sk-ant- keys in the manual.\n" * 20,
    "documented aws key": b"aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
    "placeholder": b"export GH_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
    "pem parser": b'if line == "-----BEGIN PRIVATE KEY-----":\n    raise ValueError("no key here")\n',
    "lock file": b'"integrity": "sha512-' + base64.b64encode(bytes(range(64))) + b'"\n',
    "go.sum": b"golang.org/x/crypto v0.1.0 h1:MDRAIl0xIo9Io2xV565hzXHw3zVseKrJKodhohM5CjU=\n" * 50,
    "git ids": b"commit 9fceb02d0ae598e95dc970b74767f19372d61af8\n" * 50,
    "uuids": b"id: 123e4567-e89b-12d3-a456-426614174000\n" * 50,
    "source": Path(git_views.__file__).read_bytes(),
    "data url": b"url(data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4) + b")",
    "gzip": gzip.compress(b"an ordinary fixture\n" * 100),
    "zip": _zip("a.txt", b"an ordinary fixture\n"),
    "utf-16": "an ordinary text\n".encode("utf-16") * 20,
    "unicode": "naïve café, 日本語, Ελληνικά ✓\n".encode() * 30,
    "long line": b"x" * 200_000,
    "svg": b'<path d="M10 10 C 20 20, 40 20, 50 10 L 1.234 5.678"/>' * 200,
    "minified": b"!function(e,t){\"object\"==typeof exports?module.exports=t():e.x=t()}(this,function(){});" * 100,
    "bitcoin address": b"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa\n",
    "jwt-shaped words": b"eyJ is how base64 of a JSON object begins\n",
    "csv of bytes": b"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n" * 40,
}  # fmt: skip


@pytest.mark.parametrize("name", BENIGN)
def test_ordinary_content_passes(name: str) -> None:
    assert examine(BENIGN[name]) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(40), "rar"),
        (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd"),
        (gzip.compress(b"cut short" * 5000)[:-20], "whole"),
        (gzip.compress(bytes(200 << 20), 1), "unpacks to more"),
        (b"PK\x03\x04" + b"\1" * 100, "whole"),
    ],
)
def test_what_can_not_be_read_whole_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        examine(data)


def test_an_encrypted_zip_is_refused() -> None:
    data = bytearray(_zip("a", b"content"))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Refused, match="encrypted"):
        examine(bytes(data))


def test_layers_without_end_are_refused() -> None:
    data = b"the innermost text, long enough to be looked at"
    for _ in range(12):
        data = gzip.compress(data)
    with pytest.raises(Refused, match="times over"):
        examine(data)
    text = b"the innermost text, long enough to be looked at"
    for _ in range(12):
        text = base64.b64encode(text)
    with pytest.raises(Refused, match="times over"):
        examine(text)


@pytest.mark.parametrize(
    "data",
    [
        b"3" * 34,
        b"3" * 5000,
        b",".join(b"0." + b"3" * count for count in range(20, 200)),
        b"\n".join(b"3" * count for count in range(10, 400)),
        zlib.compress(b"3" * 500),
        b"MzMz" * 40,
        b"3" * 400 + b"6",
        b"3" * 20001 + b"6" + b"3" * 20000,
        b"\n".join(b"3" * count + b"6" for count in range(20, 200)),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_a_row_of_threes_is_no_layer_on_layer_of_encoding(data: bytes) -> None:
    """Hex of threes is threes: a few in a file, or in what chance unpacks to, refused a push of random bytes."""
    assert examine(data) is None


def test_a_token_in_hex_of_hex_is_found_or_refused_and_never_passed() -> None:
    text = TOKEN
    for times in range(1, 13):
        text = text.hex().encode()
        try:
            assert "credential" in str(examine(text)), times
        except Refused:
            assert times > 8


def test_a_table_of_characters_is_no_layer_on_layer_of_encoding() -> None:
    """As libglib and libunistring have one: each time that `=BB` is undone, there is another one."""
    table = b"".join(bytes([each]) * 32 for each in range(32, 127))
    assert examine(table) is None
    assert examine(b"\0" + table) is None
    assert examine(b"%" * 999 + b"B" * 1999) is None


def test_a_token_quoted_over_and_over_is_found() -> None:
    for times in (2, 8, 9, 10, 70):
        assert "credential" in str(examine(quote_all(TOKEN, times))), times


def quote_all(text: bytes, times: int) -> bytes:
    """Return text with each character written as %XX, and each % of it again."""
    quoted = b"".join(b"%%%02X" % each for each in text)
    return quoted.replace(b"%", b"%" + b"25" * (times - 1))


def test_pictures_with_gray_in_them_are_pushed() -> None:
    """Pixels of 0x33, as dark drawings have them in rows, and what smooths their edges between."""
    noise = random.Random(7)
    for _ in range(4):
        rows = [b"3" * noise.randrange(4, 90) + noise.randbytes(noise.randrange(4)) for _ in range(400)]
        assert examine(b"\x89PNG\r\n\x1a\n\0\0IDAT" + zlib.compress(b"\0".join(rows))) is None


def test_random_bytes_are_pushed() -> None:
    """One file of two megabytes in 400 was refused; these are two of those."""
    for seed in (1204, 101351):
        assert examine(random.Random(seed).randbytes(2 << 20)) is None


def test_the_budget_is_one_for_all_that_a_push_unpacks() -> None:
    budget = Budget(total=1000, each=900)
    list(members(gzip.compress(b"x" * 800), budget))
    with pytest.raises(Refused, match="larger than"):
        list(members(gzip.compress(b"y" * 800), budget))


@settings(max_examples=150)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"x\x9c", b"BZh91AY&SY"]))
def test_any_bytes_are_judged_or_refused_and_nothing_else(data: bytes, magic: bytes) -> None:
    try:
        assert examine(magic + data) is None
    except Refused:
        return


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_tree_is_read_or_refused(data: bytes) -> None:
    try:
        list(tree_entries(data, 20))
    except Refused:
        return


@pytest.mark.parametrize(
    "text",
    [b'"' + b" " * 300_000, b"+" * 300_000, b'"+' * 100_000, b"a\n" * 150_000, b"0x" * 150_000, b"1 ," * 100_000,
     b"\\" * 300_000, b"sk-" * 100_000 + b"T3BlbkFJ", b"-----BEGIN PRIVATE KEY-----" * 8000, b"=\n" * 150_000,
     b"%" * 300_000, b"sk-ant-" * 40_000, b"sk-xxxxxxxxxxxxxxxx" * 40 + b"T3BlbkFJ" * 30_000],
)  # fmt: skip
def test_no_text_makes_the_scan_slow(text: bytes) -> None:
    began = time.monotonic()
    examine(text)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (b".github/workflows/ci.yml", True), (b".github/CODEOWNERS", True), (b"docs/codeowners", True),
        (b".gitlab-ci.yml", True), (b"Jenkinsfile", True), (b".circleci/config.yml", True), (b"sub/.lfsconfig", True),
        (b"src/workflows/ci.yml", False), (b".github/ISSUE_TEMPLATE.md", False), (b"docs/jenkinsfile-notes.md", False),
    ],
)  # fmt: skip
def test_paths_a_forge_acts_on(path: bytes, refused: bool) -> None:
    assert (git_policy.path_refusal(git_policy.DEFAULTS, Change("100644", "1" * 40, path)) is not None) is refused


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://example.org/a/b.git", False), ("ssh://git@example.org/a", False), ("git@example.org:a/b", False),
        ("../sibling", False), ("https://user:word@example.org/a", True), ("ext::sh -c id", True),
        ("file:///etc", True), ("https://example.org/a --upload-pack=id", True), ("../sibling x", True),
        ("-oProxyCommand=id", True), ("git://example.org/a", True), ("git@-example:a", True), ("/etc", True),
        ("ssh://user:word@example.org/a", True), ("https://@user:word@example.org/a", True), ("..\\a", True),
        ("https://user:word\\\n@example.org/a", True), ("ssh://git@-oProxyCommand=id/a", True),
        ("ssh://-oProxyCommand=id/a", True), ("ssh://git@example.org:2222/a@b", False), ("ssh://[::1]:22/a", False),
        ("https://example.org:8443/a:b@c", False), ("ssh://example.org/~a/b", False),
    ],
)  # fmt: skip
def test_addresses_of_submodules(url: str, refused: bool) -> None:
    for form in (
        '[submodule "a"]\n\tpath = a\n\turl = {}\n',
        '[submodule "a"] URL={}\n',
        '[submodule "]"]\r\r url= {}',
        '[submodule "a"]\n url = "{}"\n',
    ):
        assert (git_policy.modules_refusal(form.format(url).encode()) is not None) is refused


def test_no_file_of_submodules_takes_long_to_judge() -> None:
    began = time.process_time()
    assert git_policy.modules_refusal(b'[submodule "a"]\n url = x' + b" " * 1_000_000 + b"x\n") is not None
    assert time.process_time() - began < 10


def test_what_an_upstream_says_can_not_paint_over_a_terminal() -> None:
    assert said(b"\x1b[2Jfine\r\nsecond\x07 line\n") == "?[2Jfine\nsecond? line"
