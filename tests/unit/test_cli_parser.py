"""The command line's shape: what is refused, in which words, and that help is there and quick."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from opsexec import __version__
from opsexec.cli import main
from opsexec.cli.help import render
from opsexec.cli.parser import build, commands, names, parse
from opsexec.errors import UsageError


def all_parsers():
    pending = [build(commands())]
    while pending:
        parser = pending.pop()
        yield parser
        pending.extend(parser.subparsers.values())


def test_every_command_has_a_summary_examples_and_help_that_fits() -> None:
    for parser in all_parsers():
        text = render(parser)
        assert parser.command.summary.endswith("."), parser.prog
        assert "examples:" in text, parser.prog
        assert all(line.startswith(("opsexec", "  ")) or "opsexec" in line for line in parser.command.examples)
        assert max(map(len, text.splitlines())) <= 100, parser.prog


def test_every_example_is_understood_by_the_parser_itself() -> None:
    import shlex

    for parser in all_parsers():
        for example in parser.command.examples:
            words = shlex.split(example.partition(" | jq")[0].rpartition("| ")[2].partition(" > ")[0])
            words = words[words.index("opsexec") + 1 :]
            assert parse(words).handler is not None, example


def test_the_name_of_every_command_stands_in_the_module_that_is_loaded_for_it() -> None:
    assert [command.name for command in commands()] == names()
    for name in names():
        assert [command.name for command in commands(name)] == [name]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "no command was given", "see `opsexec --help`"),
        (["exce"], "unknown command 'exce'", "did you mean `exec`?"),
        (["exec"], "exec: the following arguments are required: HOST", "see `opsexec exec --help`"),
        (["exec", "web", "--tiemout", "3"], "unknown option '--tiemout'", "did you mean `--timeout`?"),
        (["exec", "web", "--time", "3"], "unknown option '--time'", "did you mean `--timeout`?"),
        (
            ["exec", "web", "web2", "--", "ls"],
            "'web2' is one argument too many",
            "a program goes after --: opsexec exec HOST -- ARGV",
        ),
        (
            ["exec", "web", "ls", "-l"],
            "'ls' is one argument too many",
            "a program goes after --: opsexec exec HOST -- ARGV",
        ),
        (["exec", "web", "--tiemout", "3", "ls"], "unknown option '--tiemout'", "did you mean `--timeout`?"),
        (["exec", "web", "--as", "bad!name"], "argument --as: 'bad!name' is not a user name", None),
        (["exec", "web", "--forks", "0"], "'0' is not a whole number from 1 to 999999999", "see `opsexec exec --help`"),
        (["exec", "web", "--forks", "1000000000"], "'1000000000' is not a whole number from 1 to 999999999", None),
        (["exec", "web", "--forks", "9" * 5000], "9' is not a whole number from 1 to 999999999", None),
        (["exec", "web", "--timeout", "soon"], "'soon' is not a positive number of seconds", None),
        (["exec", "web", "--sudo", "--as", "bob"], "not allowed with argument --sudo", None),
        (["--jsn"], "unknown option '--jsn'", None),
        (
            ["--json", "exec", "web", "--", "ls"],
            "--json is before the command it belongs to",
            "write it after it: opsexec exec --json",
        ),
    ],
)
def test_a_wrong_command_line_is_answered_with_what_is_wrong_and_what_to_do(words, message, hint) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert message in caught.value.message
    assert caught.value.hint is not None
    assert hint is None or hint == caught.value.hint


def test_words_after_the_double_dash_are_the_programs_even_when_they_look_like_options() -> None:
    args = parse(["exec", "web", "--check", "--", "ls", "--json", "--", "-l", "--help"])
    assert args.program == ["ls", "--json", "--", "-l", "--help"]
    assert args.check
    assert not args.json


def test_a_program_without_the_double_dash_is_refused_rather_than_guessed(capsys) -> None:
    assert main(["exec", "local:"]) == 2
    assert "write it after --" in capsys.readouterr().err


def test_usage_errors_exit_2_with_one_sentence_and_a_hint_on_stderr(capsys) -> None:
    assert main(["exec", "web", "--frobnicate"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "opsexec: unknown option '--frobnicate'",
        "  hint: see `opsexec exec --help`",
    ]


def test_help_and_version_go_to_stdout_and_exit_0(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"opsexec {__version__}\n"
    assert main(["exec", "--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: opsexec exec HOST [OPTIONS] -- ARGV...\n")
    assert said.err == ""


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from opsexec.cli import main; main(['--help']); "
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    heavy = {"asyncio", "asyncssh", "msgspec", "anyio", "rich", "ruamel.yaml", "pydantic", "dataclasses"}
    assert not loaded & heavy


def test_help_answers_in_under_150_ms() -> None:
    # Processor time, the best of several: a busy machine must not fail this, a slow import must.
    took = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "opsexec.cli", "--help"], capture_output=True, check=True)
        after = os.times()
        took.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(took) < 0.150
