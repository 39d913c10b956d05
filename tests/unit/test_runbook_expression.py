from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsexec.errors import BadRunbook
from opsexec.runbook.expression import parse_condition
from opsexec.runbook.reference import UndefinedVariable
from opsexec.runbook.template import parse_template, render
from opsexec.runbook.variables import Scope
from opsexec.secret import Secret


def scope(**variables) -> Scope:
    made = Scope(runbook={}, host={}, overrides={}, builtins={}, secrets={})
    made.registered = variables
    return made


VALUES = scope(
    tier="prod",
    n=3,
    text="3",
    yes=True,
    nothing=None,
    empty="",
    zero=0,
    given_true="true",
    given_false="False",
    given_zero="0",
    out={"exit_code": 0, "stdout": "a b", "lines": ["x", "y"]},
    allowed=["dev", "prod"],
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("${tier} == prod", True),
        ("${tier} == 'prod'", True),
        ('${tier} != "dev"', True),
        ("${n} == 3 and ${text} == 3", True),
        ("${text} >= 2.5", True),
        ("${n} < 10", True),
        ("${out.exit_code} == 0", True),
        ("${out.lines[1]} == y", True),
        ("${tier} in [dev, prod]", True),
        ("${tier} not in ${allowed}", False),
        ("b in ${out.stdout}", True),
        ("exit_code in ${out}", True),
        ("not ${empty}", True),
        ("not (${n} > 1 or ${yes})", False),
        ("${yes} == true and ${nothing} == null", True),
        ("${yes}", True),
        ("changed", True),
        ("failed or ${n} == 4", False),
        ("changed and ${tier} == prod", True),
        ("not not ${n}", True),
        ("${tier} == prod or ${n} == 4 and false", True),
        ("${tier} != web-1.example", True),
        ("${zero}", False),
        ("not ${given_false} and not ${given_zero}", True),
        ("${given_true} and ${text}", True),
    ],
)
def test_a_condition_means_what_it_says(text, answer):
    assert parse_condition(text).holds(VALUES, {"changed": True}) is answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prod",
        "${tier",
        "${tier} ==",
        "== prod",
        "${a} = 1",
        "(${a}",
        "${a} ${b}",
        "[a, b]",
        "'${tier}' == prod",
        "${a.b.} == 1",
        "${a[x]}",
        "${a} in [b",
        "${__import__('os')}",
        "not",
        "${a} == 1 prod",
        "(" * 200 + "${a}" + ")" * 200,
        "[" * 200,
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_loaded(text):
    with pytest.raises(BadRunbook):
        parse_condition(text)


def test_an_undefined_variable_is_named_with_its_nearest():
    with pytest.raises(UndefinedVariable) as caught:
        parse_condition("${teir} == prod").holds(VALUES)
    assert "'teir'" in caught.value.message
    assert caught.value.hint == "did you mean 'tier'?"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("chnged", "did you mean 'changed'? a variable is written ${chnged}"),
        ("off", "known: changed, failed; a variable is written ${off}"),
    ],
)
def test_a_word_that_is_no_condition_is_answered_with_those_that_are(text, hint):
    with pytest.raises(BadRunbook) as caught:
        parse_condition(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tier == prod", "a variable is written ${tier}"),
        ("'prod' == tier", "a variable is written ${tier}"),
        ("tier in [dev, prod]", "a variable is written ${tier}"),
        ("${n} == 3 and not out.exit_code == 0", "a variable is written ${out.exit_code}"),
        ("changed == true", "write changed or not changed"),
    ],
)
def test_a_comparison_of_words_alone_is_refused_when_it_is_loaded(text, hint):
    with pytest.raises(BadRunbook, match="compares no variable") as caught:
        parse_condition(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["no", "Off", "n"])
def test_a_no_that_is_text_is_not_taken_for_a_yes(text):
    with pytest.raises(BadRunbook, match="alone is no condition"):
        parse_condition("${said}").holds(scope(said=text))


def test_a_missing_field_is_named_with_its_nearest():
    with pytest.raises(UndefinedVariable) as caught:
        parse_condition("${out.exitcode} == 0").holds(VALUES)
    assert caught.value.hint == "did you mean 'exit_code'?"


@pytest.mark.parametrize("text", ["${s} == x", "${s}", "x in ${s}", "not ${s}", "${s} < 3"])
def test_a_secret_never_decides(text):
    with pytest.raises(BadRunbook, match="secret"):
        parse_condition(text).holds(scope(s=Secret("x")))


def test_values_without_an_order_are_an_error_not_false():
    with pytest.raises(BadRunbook, match="no order"):
        parse_condition("${tier} < 3").holds(VALUES)


@given(st.text(alphabet="${}()[]=!<>andornti 'x\"1.,", max_size=60))
def test_any_text_is_a_condition_or_a_bad_runbook(text):
    try:
        parse_condition(text).holds(VALUES)
    except BadRunbook:
        return


numbers = st.integers(-50, 50)


@given(numbers, numbers)
def test_numbers_compare_as_python_does_also_when_they_are_text(a, b):
    held = scope(a=a, b=str(b))
    for operator, answer in [("==", a == b), ("!=", a != b), ("<", a < b), ("<=", a <= b), (">", a > b)]:
        assert parse_condition(f"${{a}} {operator} ${{b}}").holds(held) is answer


truths = st.recursive(
    st.sampled_from([("true", True), ("false", False)]),
    lambda inner: st.one_of(
        inner.map(lambda x: (f"not {x[0]}" if " " not in x[0] else f"not ({x[0]})", not x[1])),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", p[0][1] and p[1][1])),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) or ({p[1][0]})", p[0][1] or p[1][1])),
    ),
    max_leaves=8,
)


@given(truths)
def test_and_or_not_follow_their_tables(pair):
    text, answer = pair
    assert parse_condition(text).holds(VALUES) is answer


@given(st.text(max_size=80))
def test_text_without_a_mark_is_left_as_it_is(text):
    if "${" not in text:
        assert render(text, VALUES) == text


@given(st.lists(st.sampled_from(["${tier}", "$${", "$", "{", "}", "x", "$$"]), max_size=12))
@example(["$", "{", "x", "}"])
def test_filling_in_is_done_once_and_escapes_stay_literal(pieces):
    text = "".join(pieces)
    try:
        parts = parse_template(text)
    except BadRunbook:
        return
    if any(not isinstance(part, str) and str(part) != "tier" for part in parts):
        with pytest.raises(UndefinedVariable):
            render(text, VALUES)
        return
    expected = "".join(part if isinstance(part, str) else "prod" for part in parts)
    assert render(text, VALUES) == expected


def test_what_is_filled_in_is_not_filled_in_again():
    assert render("${a}", scope(a="${b}", b="x")) == "${b}"


def test_an_escape_gives_the_mark_itself():
    assert render("$${HOME} ${tier} $5", VALUES) == "${HOME} prod $5"


def test_a_secret_makes_the_whole_text_a_secret():
    made = render("Bearer ${s}!", scope(s=Secret("abc")))
    assert isinstance(made, Secret)
    assert made.reveal() == "Bearer abc!"
    assert "abc" not in repr(made)


@pytest.mark.parametrize("name", ["nothing", "allowed", "out"])
def test_what_is_no_text_is_not_put_into_text(name):
    with pytest.raises(BadRunbook, match="not text"):
        render(f"x${{{name}}}", VALUES)
