"""The steps of a git gate: refresh a declared repository's mirror, scan what a push brings, forward it.

A repository is declared by a directory named after it: `declared.json` in it says where the upstream is and what may be
pushed, beside the key, the known host keys and the bare mirror. Whoever may write there declares; a step only names it.
"""

from __future__ import annotations

import re

from opsexec.capability import Requirement, clean_path, plain_argv
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.base import Step

MIRROR = "mirror.git"
"""The bare mirror's directory inside the declared one."""

MAX_UPDATES = 1024
SCANNER_VERB = "stdin"
"""What gitleaks is asked to read; its options follow, and are ours."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_OID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")


class Declared(Step, frozen=True, kw_only=True):
    """What the three share. `repository`: the declared name; `place`: its directory, whose last part is that name."""

    family = "git"

    repository: str
    place: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _NAME.match(self.repository) or self.repository in (".", ".."):
            raise BadStep(f"repository {self.repository[:60]!r} is malformed", hint="letters, digits and ._-")
        if clean_path(self.place).rpartition("/")[2] != self.repository:
            raise BadStep(f"{self.place[:200]!r} is not the directory of {self.repository}", hint="its last part is")

    def _needs(self, verb: str, *files: str) -> tuple[Requirement, ...]:
        tree = f"{clean_path(self.place)}/**"
        return (Requirement(verb, self.repository), *(Requirement(each, tree) for each in files))


class GitFetch(Declared, frozen=True, tag="git_fetch"):
    """Bring the mirror to what the upstream has now: branches, tags and which branch is its default.

    `hold`: keep the login at the upstream open until the step's input ends, for a forward that follows. The answer, a
    JSON object, is on its output as soon as there is one.
    """

    hold: bool = False

    def requires(self) -> tuple[Requirement, ...]:
        return self._needs("git.fetch", "fs.read", "fs.write")


class Pushed(Declared, frozen=True, kw_only=True):
    """A push that the mirror holds in quarantine.

    `quarantine`: the directory of its objects, inside the mirror's. `updates`: `OLD NEW REF`, one text each. Without a
    quarantine the step begins ahead of its push: it gets ready, then reads one line of its input, a JSON object
    `{quarantine, updates}`. Before that it does nothing to any push, and where its input ends first, nothing at all.
    """

    quarantine: str | None = None
    updates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quarantine is not None:
            inside = f"{clean_path(self.place)}/{MIRROR}/objects/"
            path = clean_path(self.quarantine)
            if not path.startswith(inside) or "/" in path[len(inside) :]:
                raise BadStep(f"quarantine {self.quarantine[:200]!r} is not the mirror's own")
        if len(self.updates) > MAX_UPDATES or (self.quarantine is not None and not self.updates):
            raise BadStep(f"a push has 1 to {MAX_UPDATES} updates, not {len(self.updates)}")
        for update in self.updates:
            old, _, rest = update.partition(" ")
            new, _, ref = rest.partition(" ")
            if not _OID.match(old) or not _OID.match(new) or not ref.startswith("refs/") or not ref.isprintable():
                raise BadStep(f"update {update[:120]!r} is not OLD NEW REF")


class GitScan(Pushed, frozen=True, tag="git_scan"):
    """Look at every object a push brings and at every name in it, and judge it by the declared policy.

    Begun ahead, its scanner is started before there is a push, since that start takes longer than most scans.
    The answer's value is `{accepted, reasons, objects, bytes}`. `known`: a JSON object of name -> value, what must
    not leave. `scanner`: gitleaks, by its absolute path; whoever grants the scan grants running that as well.
    """

    mutates = False

    scanner: str
    known: Secret | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if clean_path(self.scanner) != self.scanner:
            raise BadStep(f"scanner {self.scanner[:200]!r} is not a plain absolute path")

    def requires(self) -> tuple[Requirement, ...]:
        return (*self._needs("git.scan", "fs.read"), Requirement("exec", plain_argv((self.scanner, SCANNER_VERB))))


class GitForward(Pushed, frozen=True, tag="git_forward"):
    """Push the updates on to the declared upstream, all or none; what it refuses is refused.

    Begun ahead, it knows its updates, which the line on its input must repeat, and logs in at the upstream meanwhile.
    `line`: instead it uses the login that a fetch holds open, where there is one.
    """

    line: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.updates:
            raise BadStep("a forward names its updates")

    def requires(self) -> tuple[Requirement, ...]:
        return self._needs("git.forward", "fs.read")
