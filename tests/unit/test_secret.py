"""A secret shows as `***` however it is shown, and only `reveal` says it."""

from __future__ import annotations

import logging

import msgspec
import pytest
from rich.console import Console
from rich.pretty import pretty_repr

from opsexec import Exec
from opsexec.secret import Secret, reveal

VALUE = "correct horse battery"


def test_no_way_of_showing_it_says_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE)
    shown = [
        str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", f"{secret:>30}",
        format(secret, "s"), repr([secret]), str({"a": secret}), pretty_repr(secret), pretty_repr({"a": (secret,)}),
        repr(Exec(["/bin/a"], stdin=secret, env={"A": secret})),
    ]  # fmt: skip
    print(secret, [secret])
    Console(force_terminal=True).print(secret, [secret])
    logging.getLogger("t").warning("%s %r", secret, secret)
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown += [str(error), repr(error)]
    captured = capsys.readouterr()
    shown += [captured.out, captured.err, caplog.text]
    assert VALUE not in "".join(shown)
    assert all("***" in each for each in shown if each)
    assert repr(secret) == "Secret(***)"
    assert str(secret) == f"{secret:>30}" == "***"


def test_its_value_is_had_by_asking_for_it() -> None:
    assert Secret(VALUE).reveal() == reveal(Secret(VALUE)) == reveal(VALUE) == VALUE
    assert Secret(VALUE) == Secret(VALUE) != Secret("x")


def test_it_is_not_changed_once_made() -> None:
    with pytest.raises(AttributeError):
        Secret(VALUE).value = "x"  # type: ignore[misc]  # what is tried is that it can't be
    assert msgspec.to_builtins(Secret(VALUE)) == {"type": "secret", "value": VALUE}
