"""Completion scripts for bash, zsh and fish, each a table of what can stand where and a few lines that read it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsexec.cli.complete import Place

_BASH = r"""
_opsexec() {
    local cur=${COMP_WORDS[COMP_CWORD]} where="" kind="" word i
    local commands options valued arguments
    local -a inventory=()
    local -i at=0
    _opsexec_place ""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == -- ]]; then
            kind=program
            break
        elif [[ $word == -* ]]; then
            [[ " $valued " == *" $word="* ]] || continue
            kind=${valued##*"$word="}
            kind=${kind%% *}
            ((++i == COMP_CWORD)) && break
            [[ $word == -i || $word == --inventory ]] && inventory=(-i "${COMP_WORDS[i]}")
            kind=""
        elif [[ " $commands " == *" $word "* ]]; then
            where+="${where:+ }$word"
            _opsexec_place "$where"
        else
            at+=1
        fi
    done
    COMPREPLY=()
    if [[ -z $kind && $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        return
    fi
    if [[ -z $kind && -n $commands ]]; then
        COMPREPLY=($(compgen -W "$commands" -- "$cur"))
        return
    fi
    if [[ -z $kind ]]; then
        local -a kinds=($arguments)
        ((at < ${#kinds[@]})) || at=${#kinds[@]}-1
        ((at < 0)) || kind=${kinds[at]}
    fi
    case $kind in
        file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        host) COMPREPLY=($(compgen -W "$(opsexec hosts "${inventory[@]}" --names 2>/dev/null)" -- "$cur")) ;;
        user) COMPREPLY=($(compgen -u -- "$cur")) ;;
        program) COMPREPLY=($(compgen -c -- "$cur")) ;;
        words:*) kind=${kind#words:}; COMPREPLY=($(compgen -W "${kind//,/ }" -- "$cur")) ;;
    esac
}
complete -F _opsexec opsexec
"""


def bash(table: Sequence[Place]) -> str:
    """Return the script for bash 4 and newer."""
    lines = [
        "# bash completion for opsexec, made by `opsexec completion bash`",
        "_opsexec_place() {",
        '    case "$1" in',
    ]
    for place in table:
        commands = " ".join(name for name, _ in place.commands)
        options = " ".join(name for option in place.options for name in option.names)
        valued = " ".join(
            f"{name}={option.kind}" for option in place.options if option.kind is not None for name in option.names
        )
        lines += [
            f'        "{" ".join(place.where)}")',
            f'            commands="{commands}" arguments="{" ".join(place.arguments)}"',
            f'            options="{options}"',
            f'            valued="{valued}" ;;',
        ]
    return "\n".join([*lines, "    esac", "}"]) + _BASH


_ZSH = r"""
_opsexec() {
    local where="" kind="" word
    local -i i at=0
    local -a commands options arguments inventory hosts
    local -A valued
    _opsexec_place ""
    for ((i = 2; i < CURRENT; i++)); do
        word=$words[i]
        if [[ $word == -- ]]; then
            kind=program
            break
        elif [[ $word == -* ]]; then
            (( ${+valued[$word]} )) || continue
            if ((++i == CURRENT)); then
                kind=$valued[$word]
                break
            fi
            [[ $word == -i || $word == --inventory ]] && inventory=(-i $words[i])
        elif (( ${commands[(I)$word:*]} )); then
            where+="${where:+ }$word"
            _opsexec_place "$where"
        else
            at+=1
        fi
    done
    if [[ -z $kind && $PREFIX == -* ]]; then
        _describe -o option options
        return
    fi
    if [[ -z $kind ]] && (( $#commands )); then
        _describe command commands
        return
    fi
    if [[ -z $kind ]]; then
        ((at < $#arguments)) || at=$#arguments-1
        ((at < 0)) || kind=$arguments[at+1]
    fi
    case $kind in
        file) _files ;;
        dir) _files -/ ;;
        host) hosts=(${(f)"$(opsexec hosts $inventory --names 2>/dev/null)"}); compadd -a hosts ;;
        user) _users ;;
        program) _command_names -e ;;
        words:*) compadd -- ${(s:,:)${kind#words:}} ;;
    esac
}
if [[ $funcstack[1] == _opsexec ]]; then
    _opsexec "$@"
else
    compdef _opsexec opsexec
fi
"""


def zsh(table: Sequence[Place]) -> str:
    """Return the script for zsh; as a file named _opsexec in fpath, or sourced after compinit."""
    lines = ["#compdef opsexec", "# made by `opsexec completion zsh`", "_opsexec_place() {", '    case "$1" in']
    for place in table:
        commands = [_zsh_described(name, summary) for name, summary in place.commands]
        options = [_zsh_described(name, option.help) for option in place.options for name in option.names]
        valued = [f"{name} {option.kind}" for option in place.options if option.kind for name in option.names]
        lines += [
            f'        "{" ".join(place.where)}")',
            f"            commands=({' '.join(commands)})",
            f"            options=({' '.join(options)})",
            f"            valued=({' '.join(valued)})",
            f"            arguments=({' '.join(place.arguments)}) ;;",
        ]
    return "\n".join([*lines, "    esac", "}"]) + _ZSH


def _zsh_described(name: str, text: str) -> str:
    return shlex.quote(f"{name}:{text}")


_FISH = """# fish completion for opsexec, made by `opsexec completion fish`
function __opsexec_words
    set -l words (commandline -opc)
    string match -v -- '-*' $words[2..]
end
function __opsexec_at
    set -l words (__opsexec_words)
    test (count $words) -ge (count $argv); or return 1
    for i in (seq (count $argv))
        test "$words[$i]" = "$argv[$i]"; or return 1
    end
end
function __opsexec_only
    test (count (__opsexec_words)) -eq (count $argv); and __opsexec_at $argv
end
complete -c opsexec -f
"""

_FISH_VALUES = {
    "dir": "-x -a '(__fish_complete_directories)'",
    "file": "-r -F",
    "host": "-x -a '(opsexec hosts --names 2>/dev/null)'",
    "none": "-x",
    "user": "-x -a '(__fish_complete_users)'",
}


def fish(table: Sequence[Place]) -> str:
    """Return the script for fish 3 and newer."""
    lines = []
    for place in table:
        path = " ".join(place.where)
        for name, summary in place.commands:
            only = f"__opsexec_only {path}".rstrip()
            lines.append(f"complete -c opsexec -n '{only}' -a {name} -d {_fish_quoted(summary)}")
        here = f"{'__opsexec_only' if place.commands else '__opsexec_at'} {path}".rstrip()
        for option in place.options:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            value = "" if option.kind is None else " " + _fish_values(option.kind)
            lines.append(f"complete -c opsexec -n '{here}' {names}{value} -d {_fish_quoted(option.help)}")
        for kind in dict.fromkeys(place.arguments):
            if kind != "none":
                value = _fish_values(kind).replace("-r ", "").replace("-x ", "")
                lines.append(f"complete -c opsexec -n '{here}' {value}")
    return _FISH + "\n".join(lines) + "\n"


def _fish_values(kind: str) -> str:
    if kind.startswith("words:"):
        return f"-x -a '{kind.removeprefix('words:').replace(',', ' ')}'"
    return _FISH_VALUES[kind]


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


RENDER: dict[str, Callable[[Sequence[Place]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
