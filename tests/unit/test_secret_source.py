"""Where a secret comes from: what is unclear is refused, and only what is named is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from opsexec.errors import UsageError
from opsexec.secret_source import SecretSource, secret_source


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"from_env": "A", "prompt": "b"}, {"from_env": "A=B"}, {"from_env": ""}, {"from_env": "A\n"},
        {"prompt": ""}, {"prompt": "  "}, {"prompt": "key\x1b[2J"}, {"prompt": "key\n"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_source_that_is_unclear_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        SecretSource(**fields)


def test_the_environment_that_is_given_is_the_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "mine")
    source = SecretSource(from_env="A_KEY")
    assert (source.read({"A_KEY": "theirs"}).reveal(), source.read().reveal()) == ("theirs", "mine")
    with pytest.raises(UsageError, match="A_KEY is not set"):
        source.read({})


@pytest.mark.parametrize("value", [{}, {"from_env": "A", "prompt": "b"}, {"from_env": "A", "more": "x"}, {"env": "A"}])
def test_a_map_with_anything_else_in_it_is_no_source(value: dict[str, Any]) -> None:
    assert secret_source(value) is None


@pytest.mark.parametrize("value", [{"from_env": 3}, {"prompt": None}, {"prompt": ["a"]}])
def test_a_source_takes_text(value: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="takes text"):
        secret_source(value)


def test_a_person_is_asked_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "said"

    monkeypatch.setattr("getpass.getpass", answer)
    source = SecretSource(prompt="the key")
    with Path("/dev/null").open() as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        with pytest.raises(UsageError, match="not a terminal"):
            source.read()
        assert asked == []
        monkeypatch.setattr(nowhere, "isatty", lambda: True, raising=False)
        assert source.read().reveal() == "said"
    assert asked == ["the key: "]
    assert source.read(ask=lambda prompt: f"{prompt}!").reveal() == "the key!"
