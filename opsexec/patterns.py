"""Host patterns: name, group, glob, `all`, `!not`, `&and`, joined by commas. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol, TypeVar

from opsexec.errors import UsageError

ALL = "all"
_GLOB = frozenset("*?[")
MAX_PATTERN = 4096
"""Longest pattern taken, in characters."""


def is_plain(name: str) -> bool:
    """True for a name that a pattern can name, and means nothing else by."""
    special = name == ALL or name.startswith(("!", "&")) or not _GLOB.isdisjoint(name) or "," in name
    return bool(name) and not special and name == name.strip() and name.isprintable()


class NoHostMatches(UsageError):
    """A pattern, or one term of it, selects no host."""

    code = "no_host"


class Selectable(Protocol):
    """What a pattern is matched against: a name, and the labels (groups) it also answers to."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=Selectable)


class Term(NamedTuple):
    """One comma-separated part: `add` widens the selection, `and` keeps, `not` takes away."""

    role: Literal["add", "and", "not"]
    text: str

    def matches(self, host: Selectable) -> bool:
        """True when the host's name or one of its labels is this text, or is matched by this glob."""
        if self.text == ALL:
            return True
        if _GLOB.isdisjoint(self.text):
            return self.text == host.name or self.text in host.labels
        return any(fnmatchcase(name, self.text) for name in (host.name, *host.labels))


class Pattern(NamedTuple):
    """A parsed pattern. Plain terms are united (none = every host), then cut by `&` and `!` terms."""

    text: str
    terms: tuple[Term, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse a pattern; raises UsageError for an empty pattern or an empty term."""
        if len(text) > MAX_PATTERN:
            raise UsageError(f"the host pattern is over {MAX_PATTERN} characters", hint="name a group instead")
        terms = tuple(_term(part.strip(), text) for part in text.split(","))
        return cls(text, terms)

    def select(self, hosts: Sequence[T]) -> list[T]:
        """Return the selected hosts in their own order.

        Raises NoHostMatches when a term matches none of `hosts` (a typo must not select less in silence), or
        when the whole selects none.
        """
        for term in self.terms:
            if not any(term.matches(host) for host in hosts):
                raise NoHostMatches(f"no host or group matches {term.text!r}", hint=nearest_hint(term.text, hosts))
        chosen = self.filter(hosts)
        if not chosen:
            raise NoHostMatches(f"the pattern {self.text!r} selects no host", hint="see them with `opsexec hosts`")
        return chosen

    def filter(self, hosts: Sequence[T]) -> list[T]:
        """Return the selected hosts in their own order; none is an answer here."""
        added = [term for term in self.terms if term.role == "add"]
        return [
            host
            for host in hosts
            if (not added or any(term.matches(host) for term in added))
            and all(term.matches(host) for term in self.terms if term.role == "and")
            and not any(term.matches(host) for term in self.terms if term.role == "not")
        ]


def _term(part: str, whole: str) -> Term:
    role: Literal["add", "and", "not"] = "add"
    if part[:1] in ("!", "&"):
        role = "not" if part[0] == "!" else "and"
        part = part[1:].strip()
    if not part:
        raise UsageError(f"the host pattern {whole!r} has an empty part", hint='write it like "web,&prod,!web3"')
    return Term(role, part)


def nearest_hint(wrong: str, hosts: Sequence[Selectable]) -> str:
    """Return a hint naming the host or group that looks most like `wrong`."""
    known = {ALL: None} | {name: None for host in hosts for name in (host.name, *host.labels)}
    near = difflib.get_close_matches(wrong, list(known), n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return "see them with `opsexec hosts`" if hosts else "the inventory has no hosts"
