"""Completion for programs whose scripts ask them: what may stand at the end of these words?

Each command of such a program may offer what only it knows at that moment, like the names of what runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

SHELLS = ("bash", "zsh", "fish")
ASK = "_complete"
"""The word a script puts first; after `--` come the words of the line, the last as far as it is typed."""

_BASH = """NAME() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done \\
        < <(PROGRAM _complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    ((${#COMPREPLY[@]})) || compopt -o default 2>/dev/null
}
complete -F NAME PROGRAM
"""
_ZSH = """#compdef PROGRAM
NAME() {
    local -a found
    found=("${(@f)$(PROGRAM _complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n $found ]] && compadd -- $found || _files
}
if [[ $funcstack[1] == NAME ]]; then
    NAME "$@"
else
    compdef NAME PROGRAM
fi
"""
_FISH = """function _NAME_complete
    set -l words (commandline -opc) (commandline -ct)
    PROGRAM _complete -- $words[2..-1] 2>/dev/null
end
complete -c PROGRAM -a '(_NAME_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

Values = Callable[[argparse.Action], Iterable[str]]
"""What an argument without `choices` may be; nothing where that can't be told, or where a file may stand."""


def script(program: str, shell: str) -> str:
    """Return the completion script of one of SHELLS."""
    name = "_" + program.replace("-", "_")
    return _SCRIPTS[shell].replace("PROGRAM", program).replace("NAME", name)


def add_completion(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command that prints a script."""
    parser = commands.add_parser("completion", help="print a shell's completion script")
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def complete(words: list[str], parser: argparse.ArgumentParser, values: Values) -> int:
    """Print what may stand in the place of the last word, a line each; nothing where a file may."""
    for each in candidates(words, parser, values):
        print(each)
    return 0


def candidates(words: list[str], parser: argparse.ArgumentParser, values: Values) -> Iterator[str]:
    """Yield them, in order."""
    *before, last = words or [""]
    at, waiting, place = parser, None, 0
    for word in before:
        if word == "--":
            return
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            waiting = _takes_a_value(at, word)
        elif (inner := _commands(at).get(word)) is not None:
            at, place = inner, 0
        else:
            place += 1
    if waiting is not None:
        yield from _matching(_values(waiting, values), last)
    elif last.startswith("-"):
        options = sorted({each for action in at._actions for each in action.option_strings if each.startswith("--")})
        yield from _matching(options, last)
    elif _commands(at):
        yield from _matching(_commands(at), last)
    else:
        positional = [action for action in at._actions if not action.option_strings]
        if place < len(positional):
            yield from _matching(_values(positional[place], values), last)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _takes_a_value(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    if "=" in word:
        return None
    return next((each for each in parser._actions if word in each.option_strings and each.nargs != 0), None)


def _values(action: argparse.Action, values: Values) -> Iterable[str]:
    return values(action) if action.choices is None else [str(each) for each in action.choices]


def _matching(words: Iterable[str], start: str) -> Iterator[str]:
    yield from (word for word in words if word.startswith(start))
