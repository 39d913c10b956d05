"""Steps a doctor reads a host with: a question to one of its programs, a directory's entries, a socket's pulse."""

from __future__ import annotations

import re

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.steps.base import Step, service_name
from opsexec.steps.launchd_target import is_domain, is_target, resource_of
from opsexec.steps.questions import QUESTIONS, Question

_NAMES = {
    "container": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}\Z"),
    "connection": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,254}\Z"),
    "image": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,511}\Z"),
    "user": re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z"),
}
_ADDRESS = re.compile(r"[0-9A-Fa-f][0-9A-Fa-f.:]{1,44}\Z")
_PLACES = re.compile(r"\{number\}|\{address\}|\{\}")


class Inquire(Step, frozen=True, tag="inquire"):
    """Put one of QUESTIONS to the host; its exit status and output are the answer, whatever they are.

    `subject`: the unit, container, image, user or path it is about. `number`: a threshold where the question takes one;
    `address`: an IP address where it takes one. `user`: ask the login's own service manager. `connection`: ask podman
    through this connection of its own.
    """

    family = "doctor"
    mutates = False

    ask: str
    subject: str = ""
    number: int | None = None
    user: bool = False
    connection: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        question = self.question
        if bool(self.subject) != bool(question.subject):
            raise BadStep(f"{self.ask} takes {question.subject or 'no'} subject", hint="see opsexec/steps/questions.py")
        if question.subject == "path":
            clean_path(self.subject)
        elif question.subject == "unit":
            _unit(self.ask, self.subject)
        elif question.subject and not _NAMES[question.subject].match(self.subject):
            raise BadStep(f"{self.subject[:60]!r} is no name of a {question.subject}")
        if ("{number}" in " ".join(question.argv)) != (self.number is not None):
            raise BadStep(f"{self.ask} takes a number exactly where its argv has a place for one")
        if self.number is not None and not 0 <= self.number <= 100_000:
            raise BadStep("number is not between 0 and 100000")
        if ("{address}" in question.argv) != (self.address is not None):
            raise BadStep(f"{self.ask} takes an address exactly where its argv has a place for one")
        if self.address is not None and not _ADDRESS.match(self.address):
            raise BadStep(f"{self.address[:60]!r} is no IP address")
        if self.connection is not None and not (
            question.argv[0] == "podman" and _NAMES["connection"].match(self.connection)
        ):
            raise BadStep(f"connection {self.connection[:60]!r} is malformed, or {self.ask} is none to podman")

    @property
    def question(self) -> Question:
        """The row of the table; raises BadStep for a question that isn't in it."""
        found = QUESTIONS.get(self.ask)
        if found is None:
            raise BadStep(f"there is no question {self.ask[:60]!r}", hint="see opsexec/steps/questions.py")
        return found

    def argv(self) -> tuple[str, ...]:
        """The words of the program that is asked."""
        question = self.question
        subject = clean_path(self.subject) if question.subject == "path" else self.subject
        values = {"{number}": str(self.number), "{address}": str(self.address), "{}": subject}
        words = [_PLACES.sub(lambda match: values[match[0]], word) for word in question.argv]
        if self.user and question.user_manager:
            words.insert(1, "--user")
        if self.connection is not None:
            words[1:1] = ["--connection", self.connection]
        return tuple(words)

    def requires(self) -> tuple[Requirement, ...]:
        question = self.question
        if question.subject == "path":
            return (Requirement(question.verb, clean_path(self.subject)),)
        also = (Requirement("fs.read", question.reads),) if question.reads else ()
        subject = resource_of(self.subject) if self.ask.startswith("launchd.") else self.subject
        return (Requirement(question.verb, subject or question.resource), *also)


def _unit(ask: str, subject: str) -> None:
    if ask.startswith("launchd."):
        if not (is_domain(subject) or is_target(subject)):
            raise BadStep(f"{subject[:60]!r} is no launchd service target", hint="like gui/501/com.example.web")
        return
    service_name(subject)


class Survey(Step, frozen=True, tag="survey"):
    """List what a directory holds, links not followed; `value` is `{exists, entries, cut, denied, unreadable}`.

    `depth`: how many levels; `max_entries`: where it stops, saying so in `cut`; `digest`: with the sha256 of
    small files. Entries outside the grants are counted in `denied`, not shown.
    """

    family = "doctor"
    mutates = False

    path: str
    depth: int = 1
    max_entries: int = 2000
    digest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        if not (1 <= self.depth <= 8 and 1 <= self.max_entries <= 20_000):
            raise BadStep("depth is not between 1 and 8, or max_entries not between 1 and 20000")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("fs.read", clean_path(self.path)),)


class PingSocket(Step, frozen=True, tag="ping_socket"):
    """Connect to a container service's unix socket and send `GET /_ping`; `value` is `{state, detail}`.

    `state`: ok, missing, refused, denied, silent, or odd (something else listens there).
    """

    family = "doctor"
    mutates = False

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("fs.read", clean_path(self.path)), Requirement("container.read", "podman"))
