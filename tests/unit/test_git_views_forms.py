"""What is found fast is what the plain form finds: each run and junction, wherever it stands, and nothing else."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle.sidecars.egress import search
from opsexec.far import git_views

JUNCTION = re.compile(
    rb"\\\r?\n[ \t]*|[\"'`][ \t]{0,8}(?:\+|\.\.?|\|\||&|,|<>)?[ \t]{0,8}(?:\\?\r?\n[ \t]*)?(?:\+|\.\.?|\|\||&|,|<>)?"
    rb"[ \t]{0,8}[fbru]?[\"'`]"
)
PARAMETERS = re.compile(rb"[?&;\s][^=&;\s]*=|[&;\s]+")

ALPHABETS = {
    "literals": b"\\\"'`fbru \t\r\n+.|&,<>ax",
    "parameters": b"?&;= \n\tab=",
    "base64": b"ABCDwxyz0123456789+/_-=\n\r \"',#*>;|\\n",
    "hex": b"0123456789abcdefABCDEF \\x%:,;.-\ng",
    "numbers": b"0123456789, \t\n\r\f\vx.",
    "bytes": bytes(range(256)),
}


def texts(name: str) -> st.SearchStrategy[bytes]:
    """Texts of mostly one alphabet, long enough for every form."""
    characters = st.sampled_from([bytes([each]) for each in ALPHABETS[name]])
    return st.lists(characters, max_size=160).map(b"".join)


@pytest.mark.parametrize("name", ["literals", "bytes"])
def test_a_junction_is_found_where_its_plain_form_finds_one(name: str) -> None:
    @given(texts(name))
    def check(text: bytes) -> None:
        assert git_views._JUNCTION.sub(b"", text) == JUNCTION.sub(b"", text)

    check()


@pytest.mark.parametrize("name", ["parameters", "bytes"])
def test_a_parameter_is_found_where_its_plain_form_finds_one(name: str) -> None:
    @given(texts(name))
    def check(text: bytes) -> None:
        assert search._PARAMETERS.sub(b" ", text) == PARAMETERS.sub(b" ", text)

    check()


RUNS = {
    "base64": (git_views._BASE64, 14, git_views._BASE64_RUNS),
    "hex": (git_views._HEX_REGION, 20, git_views._HEX_RUNS),
    "numbers": (git_views._NUMBER_REGION, 23, git_views._NUMBER_RUNS),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_each_run_is_found_where_its_form_finds_one(name: str) -> None:
    form, least, table = RUNS[name]

    @given(texts(name) | texts("bytes"))
    def check(text: bytes) -> None:
        found = [each.span() for each in git_views._each(form, least, text, table)]
        assert found == [each.span() for each in form.finditer(text)]

    check()


TABLES = {
    **RUNS,
    "printable": (git_views._PRINTABLE, 10, git_views._PRINTABLE_RUNS),
    "base32": (git_views._BASE32[0], 16, git_views._RUNS32[0]),
    "small base32": (git_views._BASE32[1], 16, git_views._RUNS32[1]),
}


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_knows_exactly_the_characters_of_its_form(name: str) -> None:
    form, least, table = TABLES[name]
    for byte in range(256):
        assert bool(table[byte]) == (form.fullmatch(bytes([byte]) * least) is not None), byte


@pytest.mark.parametrize(
    ("run", "value"),
    [
        (base64.b64encode(b"0123456789").rstrip(b"="), b"0123456789"),
        (base64.b32encode(b"0123456789"), b"0123456789"),
        (base64.b32encode(b"0123456789").lower(), b"0123456789"),
        (b"0123456789".hex().encode(), b"0123456789"),
        (b",".join([b"9"] * 12), b"\t" * 12),
    ],
    ids=["base64", "base32", "small base32", "hex", "numbers"],
)
def test_the_shortest_run_of_each_form_is_decoded(run: bytes, value: bytes) -> None:
    assert value in b"\n".join(git_views.decoded(b"(" + run + b")"))
