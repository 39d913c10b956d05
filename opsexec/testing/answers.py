"""What programs say on a fake host: patterns of argv words, and how each run ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from opsexec.far.match import word_matches


class NoAnswer(AssertionError):
    """A program was run for which the test scripted nothing."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a program ends.

    `stdout`, `stderr`: what it says. `delay_s`: seconds before it ends. `signal`: its name when one ended it.
    `missing`: the host has no such program. `raises`: an error that the run ends with, like ConnectionLost.
    """

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    delay_s: float = 0.0
    signal: str | None = None
    missing: bool = False
    raises: BaseException | None = None

    @classmethod
    def of(cls, value: Any) -> Answer:
        """Return the answer a short form means: an exit status, stdout, a mapping of fields, an error."""
        if isinstance(value, Answer):
            return value
        if isinstance(value, bool):
            return cls(exit_code=0 if value else 1)
        if isinstance(value, int):
            return cls(exit_code=value)
        if isinstance(value, str | bytes):
            return cls(stdout=_bytes(value))
        if isinstance(value, BaseException):
            return cls(raises=value)
        if isinstance(value, Mapping):
            wrong = next((key for key in value if key not in cls.__struct_fields__), None)
            if wrong is not None:
                known = ", ".join(cls.__struct_fields__)
                raise TypeError(f"{wrong!r} is no field of an answer: give some of {known}")
            fields = {k: _bytes(v) if k in ("stdout", "stderr") else v for k, v in value.items()}
            return msgspec.convert(fields, cls)
        raise TypeError(f"{value!r} is not an answer: give an exit status, text, bytes, a mapping or an Answer")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


class Script:
    """Patterns with their answers. A list of answers is used up one a run; its last one stays.

    A pattern is a command line as a shell would split it; `*` in a word matches within it, `**` as the last
    word any further words. Its first word may be a bare name, which stands for that program in any directory.
    The first pattern that matches wins.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._rows: list[tuple[list[str], list[Answer]]] = []
        for pattern, value in answers.items():
            many = value if isinstance(value, list) else [value]
            if not many or not pattern.strip():
                raise TypeError(f"{pattern!r}: {value!r} is not a command pattern with an answer or a list of them")
            self._rows.append((shlex.split(pattern), [Answer.of(each) for each in many]))

    def answer(self, argv: Sequence[str]) -> Answer:
        """Return the answer of this run; raises NoAnswer when no pattern matches."""
        for words, answers in self._rows:
            if _matches(words, argv):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        known = ", ".join(shlex.join(words) for words, _ in self._rows) or "nothing"
        raise NoAnswer(f"no answer is scripted for {shlex.join(argv)!r}; scripted: {known}")


def _matches(pattern: Sequence[str], argv: Sequence[str]) -> bool:
    words = list(pattern)
    rest = words[-1:] == ["**"]
    if rest:
        words.pop()
    if len(argv) < len(words) or (len(argv) > len(words) and not rest):
        return False
    if words and "/" not in words[0]:
        argv = (argv[0].rpartition("/")[2], *argv[1:])
    return all(word_matches(p, w) for p, w in zip(words, argv, strict=False))
