"""What `ops-agent` says of a command line that is none."""

from __future__ import annotations

import pytest

from agent.cli import main
from tests.parts.told import is_sentence_and_hint


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--config FILE is missing, or a command"),
        (["--config"], "argument --config: expected one argument"),
        (["--conf", "x.toml", "whoami"], "unknown command 'x.toml'"),
        (["whomai"], "hint: did you mean `whoami`?"),
        (["whoami", "--jsn"], "unknown option '--jsn'\n  hint: did you mean `--json`?"),
        (["check-config"], "check-config: the following arguments are required: FILE"),
        (["completion", "tcsh"], "hint: one of: bash, zsh, fish"),
        (["doctor"], "doctor needs a NAME"),
        (["doctor", "web", "--format", "sarfi"], "hint: did you mean `sarif`?"),
        (["approve"], "approve: the following arguments are required: RUN"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_a_hint(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert is_sentence_and_hint("ops-agent", said.err), said.err
