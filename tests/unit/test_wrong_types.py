"""What Python lets through, and what would be misread or fail later in words of the library's own insides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsexec import BadStep, CapabilitySet, Exec, UsageError, WriteFile, connect

ALL = CapabilitySet.everything()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exec(["id"], timeout_s="3"), "timeout_s '3' is not a positive number of seconds"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Exec(["id"], run_as=5), "run_as '5' is not a user name"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: WriteFile("/x", content=b"x"), "content is no text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("ssh://x", capabilities=["exec:**"]), "capabilities is no CapabilitySet"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("local:", capabilities=None), "capabilities is no CapabilitySet"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: connect("ssh://x", capabilities=ALL, host_keys="accept_new"), "host_keys is 'accept_new'"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_where_it_is_given(make: Callable[[], object], message: str) -> None:
    with pytest.raises((UsageError, BadStep)) as caught:
        make()
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize("given", ["~/.ssh/deploy", Path("~/.ssh/deploy"), ["~/.ssh/deploy"]])
def test_one_file_alone_is_no_list_of_letters(given: str | Path | list[str]) -> None:
    ex = connect("ssh://x", capabilities=ALL, identity_files=given, known_hosts=given, config_files=given)  # type: ignore[arg-type]  # a Path will do
    options = ex._host.options  # type: ignore[attr-defined]  # the SSH host's own
    assert options.identity_files == options.known_hosts == options.config_files == ("~/.ssh/deploy",)
