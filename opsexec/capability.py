"""Capabilities: `verb:pattern` strings, sets of them with limits, and the one question they answer: is this admitted?

A `CapabilitySet` is a conjunction of layers. Each layer is one grant list; a requirement is admitted when every layer
admits it, so `a.intersect(b)` (the union of their layers) admits exactly what both admit.
"""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from opsexec.errors import BadCapability, BadStep, CapabilityDenied, LimitExceeded
from opsexec.far.match import argv_matches, normalise, path_matches, word_matches
from opsexec.verbs import ANY_PATTERN, VERBS, Kind, expand

SAFE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where a bare program name is looked for, in order, whatever PATH says on either side."""

MAX_NAME = 255
"""Longest name a file can have on Linux (NAME_MAX), in bytes."""

_PIN = re.compile(r"@sha256:[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9_.:@%+=,/*-]+\Z")


class Requirement(NamedTuple):
    """What a Step needs: a verb and one resource (a path, an argv, or a name, as the verb's kind says)."""

    verb: str
    resource: str | tuple[str, ...]

    def __str__(self) -> str:
        resource = shlex.join(self.resource) if isinstance(self.resource, tuple) else self.resource
        return f"{self.verb}:{resource}"


class Capability(NamedTuple):
    """One parsed grant. `verbs` are the verbs it names, `words` the pattern as its kind wants it."""

    text: str
    verbs: tuple[str, ...]
    kind: Kind
    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Capability:
        """Parse `verb:pattern`; raises BadCapability for anything that is not in the grammar."""
        return _parse(text)

    def admits(self, need: Requirement) -> bool:
        """True when this grant admits the requirement, whose path is normalised and whose argv[0] is absolute."""
        if need.verb not in self.verbs:
            return False
        if isinstance(need.resource, tuple):
            return self.kind == "argv" and argv_matches(self.words, need.resource)
        if self.kind == "path":
            return path_matches(self.words[0], need.resource)
        if self.kind == "name":
            return _name_matches(self.words[0], need.resource)
        return False

    def __str__(self) -> str:
        return self.text


def _name_matches(pattern: str, resource: str) -> bool:
    """Names match by word; an unpinned pattern admits an action whatever its script, a pinned one only that script."""
    if not _PIN.search(pattern):
        resource = _PIN.sub("", resource)
    return word_matches(pattern, resource)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Capability:
    verb, colon, pattern = text.partition(":")
    if not colon:
        raise BadCapability(f"{text!r} is not a capability", hint='write it as "verb:pattern", like "fs.read:/etc/**"')
    verbs = expand(verb)
    if not verbs:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "`opsexec actions` lists the verbs"
        raise BadCapability(f"unknown verb {verb!r} in {text!r}", hint=hint)
    kinds = {VERBS[v].kind for v in verbs}
    if len(kinds) != 1:
        raise BadCapability(f"{verb!r} spans verbs of different kinds in {text!r}", hint="name the verbs one by one")
    if not pattern or pattern != pattern.strip():
        raise BadCapability(f"empty or padded pattern in {text!r}", hint="write the resource right after the colon")
    kind = kinds.pop()
    words = {"path": _path_pattern, "argv": _argv_pattern, "name": _name_pattern}[kind](pattern, text)
    return Capability(text, verbs, kind, words)


def _path_pattern(pattern: str, text: str) -> tuple[str, ...]:
    if not pattern.startswith("/"):
        raise BadCapability(f"path pattern in {text!r} is not absolute", hint="start it with /")
    if pattern != "/" and pattern.endswith("/"):
        raise BadCapability(f"path pattern in {text!r} ends with /", hint=f'write "{text}**" for the tree below it')
    segments = pattern.split("/")[1:]
    if pattern != "/" and any(s in ("", ".", "..") for s in segments):
        raise BadCapability(f"path pattern in {text!r} has an empty, . or .. segment", hint="write it normalised")
    if "\0" in pattern or any("**" in s and s != "**" for s in segments):
        raise BadCapability(
            f"stray wildcard in {text!r}", hint="`**` stands alone between slashes; `*` stays in one name"
        )
    return (pattern,)


def _argv_pattern(pattern: str, text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(pattern)
    except ValueError as error:
        raise BadCapability(f"{text!r}: {error}", hint="quote the words as for a shell") from error
    first = words[0] if words else ""
    if first == "**":
        if len(words) > 1:
            raise BadCapability(f"words after a leading ** in {text!r}", hint='"exec:**" already admits every argv')
        return ("**",)
    if not first.startswith("/"):
        raise BadCapability(
            f"program in {text!r} is not absolute", hint=f'write the whole path, like "exec:/usr/bin/{first}"'
        )
    _path_pattern(first, text)
    for at, word in enumerate(words[1:], 1):
        if "**" in word and not (word == "**" and at == len(words) - 1):
            raise BadCapability(f"stray wildcard in {text!r}", hint="`**` may only be the last word")
    return tuple(words)


def _name_pattern(pattern: str, text: str) -> tuple[str, ...]:
    if "**" in pattern or not _NAME.match(pattern):
        raise BadCapability(
            f"stray wildcard or character in {text!r}", hint="a name pattern has letters, digits, ._-@ and *"
        )
    if "@sha256" in pattern and not _PIN.search(pattern):
        raise BadCapability(f"malformed script pin in {text!r}", hint="pin as action@sha256:<64 lower-case hex digits>")
    return (pattern,)


class Layer(NamedTuple):
    """One grant list with its limits. `run_as` are the users it may become beside the login itself (`*` = any)."""

    capabilities: frozenset[Capability]
    run_as: frozenset[str] = frozenset()
    max_timeout_s: float | None = None
    max_output_bytes: int | None = None


class CapabilitySet:
    """A set of capabilities with limits; immutable. Build it with `of`, narrow it with `intersect`."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = frozenset(layers)
        self._last: tuple[Requirement, tuple[str, ...]] | None = None  # a step's argv is asked for twice in a row

    @classmethod
    def of(
        cls,
        *capabilities: str,
        run_as: Iterable[str] = (),
        max_timeout_s: float | None = None,
        max_output_bytes: int | None = None,
    ) -> CapabilitySet:
        """Build a set from capability strings. Limits: seconds a step may take, bytes of output it may make.

        Raises BadCapability for a malformed string or a limit that isn't positive.
        """
        limits: tuple[object, ...] = (max_timeout_s, max_output_bytes)
        for limit in limits:
            if limit is not None and not (isinstance(limit, (int, float)) and 0 < limit < math.inf):
                raise BadCapability(f"limit {limit!r} is not a positive number", hint="leave it out for no limit")
        if isinstance(run_as, str):
            raise BadCapability(f"run_as is the text {run_as!r}, not a list of users", hint=f"give [{run_as!r}]")
        for text in capabilities:
            if not isinstance(text, str):
                raise BadCapability(
                    f"{text!r} is no capability's text", hint="a list goes in as CapabilitySet.of(*list)"
                )
        parsed = frozenset(Capability.parse(text) for text in capabilities)
        return cls([Layer(parsed, frozenset(run_as), max_timeout_s, max_output_bytes)])

    @classmethod
    def everything(cls) -> CapabilitySet:
        """Every verb on every resource as any user: what an operator's own executor holds when nothing narrows it."""
        return cls.of(*(f"{name}:{ANY_PATTERN[verb.kind]}" for name, verb in VERBS.items()), run_as=["*"])

    @classmethod
    def nothing(cls) -> CapabilitySet:
        """The empty set: admits no Step at all."""
        return cls.of()

    def intersect(self, other: CapabilitySet) -> CapabilitySet:
        """Return the set that admits exactly what both admit."""
        return CapabilitySet(self.layers | other.layers)

    __and__ = intersect

    def admits(self, need: Requirement) -> bool:
        """True when every layer admits the requirement. A bare program name is admitted when one candidate is."""
        if VERBS[need.verb].kind == "argv":
            return bool(self.admitted_programs(need))
        return self._admits_exact(need)

    def _admits_exact(self, need: Requirement) -> bool:
        for layer in self.layers:
            for capability in layer.capabilities:
                if capability.admits(need):
                    break
            else:
                return False
        return bool(self.layers)

    def admitted_programs(self, need: Requirement) -> tuple[str, ...]:
        """Return the absolute programs argv[0] may turn out to be on the host under this set, best first.

        A bare name stands for one candidate in each directory of SAFE_PATH; the host takes the first that exists
        there, and runs it only if it is in this list.
        """
        if self._last is not None and self._last[0] == need:
            return self._last[1]
        assert isinstance(need.resource, tuple)
        argv = need.resource
        admitted = tuple(
            p for p in program_candidates(argv[0]) if self._admits_exact(Requirement(need.verb, (p, *argv[1:])))
        )
        self._last = need, admitted
        return admitted

    def require(self, need: Requirement, *, host: str | None = None, layer: str = "caller") -> None:
        """Raise CapabilityDenied unless the requirement is admitted; it shows what the layers hold that refuse it."""
        if not self.admits(need):
            refusing = [each for each in self.layers if not CapabilitySet((each,)).admits(need)]
            short = CapabilitySet(refusing) if refusing else self
            raise CapabilityDenied(str(need), short.describe(need.verb), host=host, layer=layer)

    def require_user(self, run_as: str | None, *, host: str | None = None, layer: str = "caller") -> None:
        """Raise CapabilityDenied unless every layer lets a Step run as this user (None = the login's own)."""
        if run_as is None:
            return
        for each in self.layers:
            if run_as not in each.run_as and "*" not in each.run_as:
                held = [f"run_as:{u}" for u in sorted(each.run_as)]
                raise CapabilityDenied(f"run_as:{run_as}", held, host=host, layer=layer)

    def path_layers(self, verb: str) -> tuple[tuple[str, ...], ...]:
        """Return, layer by layer, the path patterns granted for `verb`: what the host checks again after symlinks."""
        return tuple(
            tuple(sorted(c.words[0] for c in layer.capabilities if verb in c.verbs and c.kind == "path"))
            for layer in self.layers
        )

    def describe(self, verb: str | None = None) -> list[str]:
        """Return the capability strings held (for `verb` only, when given), sorted; layers joined by ` & `."""
        texts = [sorted(c.text for c in layer.capabilities if verb is None or verb in c.verbs) for layer in self.layers]
        if len(texts) == 1:
            return texts[0]
        return sorted(" | ".join(t) or "nothing" for t in texts)

    @cached_property
    def max_timeout_s(self) -> float | None:
        """The shortest time limit of any layer, in seconds; None = unlimited."""
        return min((layer.max_timeout_s for layer in self.layers if layer.max_timeout_s is not None), default=None)

    @cached_property
    def max_output_bytes(self) -> int | None:
        """The smallest output limit of any layer, in bytes over stdout and stderr; None = unlimited."""
        return min((y.max_output_bytes for y in self.layers if y.max_output_bytes is not None), default=None)

    def clamp_timeout(self, wanted: float | None, *, host: str | None = None) -> float | None:
        """Return the timeout to use, in seconds; raises LimitExceeded when `wanted` is over the limit."""
        limit = self.max_timeout_s
        if wanted is not None and limit is not None and wanted > limit:
            raise LimitExceeded(
                f"timeout {wanted:g} s is over the limit of {limit:g} s", host=host, hint="ask for less"
            )
        return limit if wanted is None else wanted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CapabilitySet) and self.layers == other.layers

    def __hash__(self) -> int:
        return hash(self.layers)

    def __repr__(self) -> str:
        return f"CapabilitySet({', '.join(self.describe())})"


@lru_cache(maxsize=1024)
def program_candidates(argv0: str) -> tuple[str, ...]:
    """Return the absolute programs that argv[0] may mean. Raises BadStep for an empty or ambiguous one."""
    if "/" not in argv0:
        if not argv0 or "\0" in argv0 or argv0 in (".", ".."):
            raise BadStep(f"argv[0] is {argv0!r}", hint="name a program or its absolute path")
        if len(argv0) > MAX_NAME:
            raise BadStep(f"argv[0] has {len(argv0)} characters, and no file name is so long", hint="name a program")
        return tuple(f"{directory}/{argv0}" for directory in SAFE_PATH)
    if not argv0.startswith("/"):
        raise BadStep(f"argv[0] {argv0!r} is relative to a directory", hint="use its absolute path or a bare name")
    return (clean_path(argv0),)


def plain_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """Return an argv whose first word, when a path, is normalised: what is matched is also what the program is told.

    A program may look for its parts beside argv[0], and to the kernel `/tmp/link/../usr/bin/gcc` is another place.
    """
    first, *rest = argv
    return (clean_path(first) if first.startswith("/") else first, *rest)


@lru_cache(maxsize=1024)
def clean_path(path: str) -> str:
    """Return the normalised form of a Step's path; raises BadStep when it has none."""
    if not isinstance(path, str):
        raise BadStep(f"path {path!r} is no text", hint="give an absolute path as a str")
    try:
        return normalise(path)
    except ValueError as error:
        raise BadStep(f"path {path[:80]!r}: {error}", hint="give an absolute path") from error


def least(needs: Sequence[Requirement]) -> list[str]:
    """Return the least capability strings that admit these requirements, sorted and without doubles."""
    return sorted({str(need) for need in needs})
