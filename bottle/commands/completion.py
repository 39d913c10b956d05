"""`bottle completion SHELL`, and the question its scripts ask: what may stand at the end of these words?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
ASK = "_complete"

_BASH = """_bottle() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done \\
        < <(bottle _complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    ((${#COMPREPLY[@]})) || compopt -o default 2>/dev/null
}
complete -F _bottle bottle
"""
_ZSH = """#compdef bottle
_bottle() {
    local -a found
    found=("${(@f)$(bottle _complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n $found ]] && compadd -- $found || _files
}
compdef _bottle bottle
"""
_FISH = """function __bottle_complete
    set -l words (commandline -opc) (commandline -ct)
    bottle _complete -- $words[2..-1] 2>/dev/null
end
complete -c bottle -a '(__bottle_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(arguments: argparse.Namespace) -> int:
    """Print a shell's script."""
    print(SCRIPTS[arguments.shell], end="")
    return 0


def complete(words: list[str], parser: argparse.ArgumentParser) -> int:
    """Print what may stand in the place of the last word, a line each; nothing where a file may."""
    for each in candidates(words, parser):
        print(each)
    return 0


def candidates(words: list[str], parser: argparse.ArgumentParser) -> Iterator[str]:
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
        yield from _matching(_values(waiting), last)
    elif last.startswith("-"):
        options = sorted({each for action in at._actions for each in action.option_strings if each.startswith("--")})
        yield from _matching(options, last)
    elif _commands(at):
        yield from _matching([name for name in _commands(at) if name != ASK], last)
    else:
        positional = [action for action in at._actions if not action.option_strings]
        if place < len(positional):
            yield from _matching(_values(positional[place]), last)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _takes_a_value(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    if "=" in word:
        return None
    return next((each for each in parser._actions if word in each.option_strings and each.nargs != 0), None)


def _values(action: argparse.Action) -> list[str]:
    """Return what an argument may be, where that can be told."""
    if action.choices is not None:
        return [str(each) for each in action.choices]
    if action.metavar == "ID":
        from bottle.manifest.store import home_root
        from bottle.state import State

        return State(home_root()).identities()
    if action.metavar == "AGENT":
        return _agents()
    return []


def _agents() -> list[str]:
    from bottle.manifest.store import home_root

    found = set()
    for place in (home_root() / "agents", os.path.join(".bot-bottle", "agents")):
        try:
            names = os.listdir(place)
        except OSError:
            continue
        found |= {name.removesuffix(".md") for name in names if name.endswith(".md")}
    return sorted(found)


def _matching(words: list[str], start: str) -> Iterator[str]:
    yield from (word for word in words if word.startswith(start))
