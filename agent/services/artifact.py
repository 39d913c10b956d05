"""What an install puts on a host, as data: each file's place, content and mode, made from a declaration alone."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from agent.services.receipt import RECEIPTS
from opsexec.errors import UsageError
from opsexec.far.match import normalise

if TYPE_CHECKING:
    from agent.services.declaration import Declaration

Kind = Literal["wrapper", "unit", "plist", "auth"]
EMPTY_AUTH = b'{"auths":{}}\n'
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@:+,-]*\Z")


class Artifact(NamedTuple):
    """One file. `mode`: octal text."""

    kind: Kind
    path: str
    data: bytes
    mode: str

    @property
    def sha256(self) -> str:
        """The digest of its content, as a receipt has it."""
        return hashlib.sha256(self.data).hexdigest()


class Places(NamedTuple):
    """Where a service's files stand. `units`: definitions; `wrappers`; `state`: all that is the service's alone."""

    units: str
    wrappers: str
    state: str
    quarantine: str

    @classmethod
    def of(cls, name: str, *, user: bool, home: str, darwin: bool = False) -> Places:
        """Return the places of a service of the system, or of the user whose home this is."""
        if user:
            units = f"{home}/Library/LaunchAgents" if darwin else f"{home}/.config/systemd/user"
            state = f"{home}/.local/state/ops-agent"
            return cls(units, f"{home}/.local/libexec/ops-agent", f"{state}/services/{name}", f"{state}/quarantine")
        units = "/Library/LaunchDaemons" if darwin else "/etc/systemd/system"
        root = RECEIPTS.rpartition("/")[0]
        return cls(units, "/usr/local/libexec/ops-agent", f"{RECEIPTS}/{name}", f"{root}/quarantine")

    @property
    def staged(self) -> str:
        """Where files wait until a preflight has passed."""
        return f"{self.state}/staged"

    @property
    def held(self) -> str:
        """Where a definition waits, unredacted, while its service is in quarantine."""
        return f"{self.state}/held"

    def wrapper(self, name: str) -> str:
        """The path of a service's wrapper."""
        return f"{self.wrappers}/{name}"


def auth_places(declared: Declaration, places: Places) -> tuple[str, str]:
    """Return the authfile a runtime is given, and the directory it takes for docker's configuration."""
    return declared.auth.authfile or f"{places.state}/auth/auth.json", f"{places.state}/auth/docker"


def auth_files(declared: Declaration, places: Places) -> list[Artifact]:
    """Return the empty credentials of a container service; a declared authfile is its owner's to make."""
    if declared.runtime != "podman":
        return []
    authfile, directory = auth_places(declared, places)
    found = [Artifact("auth", f"{directory}/config.json", EMPTY_AUTH, "0600")]
    if declared.auth.authfile is None:
        found.insert(0, Artifact("auth", authfile, EMPTY_AUTH, "0600"))
    return found


def plain_path(path: str, what: str) -> str:
    """Return a path that can stand in a definition as it is; raises UsageError for one that needs quoting there."""
    try:
        clean = normalise(path)
    except ValueError as error:
        raise UsageError(f"{what} {path[:80]!r} is no absolute path") from error
    if not _PLAIN_PATH.match(clean):
        raise UsageError(f"{what} {path[:80]!r} has characters that mean something to a service manager",
                         hint="letters, digits and _./@:+,-")  # fmt: skip
    return clean


def plain_words(text: str) -> str:
    """Return a text that can stand in a definition's comment or description: one line, nothing to expand."""
    return re.sub(r"[^A-Za-z0-9 ._@/:+,-]", "_", text)[:120].strip()


def require_generated(declared: Declaration) -> None:
    """Raise UsageError for a declaration that nothing can be made from."""
    if declared.runtime == "systemd":
        raise UsageError(
            f"{declared.name} is declared as a unit of the system's own: there is nothing to make or install",
            hint="start, stop, quarantine and release it; or declare runtime = native or podman",
        )
    if "@" in declared.name:
        raise UsageError(f"{declared.name}: a template has no wrapper of its own", hint="a name without @")
    if declared.runtime == "podman" and not declared.image:
        raise UsageError(f"{declared.name} runs in podman, and its declaration names no image", hint='image = "..."')
    if declared.runtime != "podman":
        if not declared.command:
            raise UsageError(f"{declared.name} has no command", hint='command = ["/usr/bin/..."]')
        plain_path(declared.command[0], "the program")
    for word in (*declared.command, declared.image or "", declared.container_name or ""):
        if "\0" in word:
            raise UsageError(f"{declared.name}: a word of its command holds NUL")
    for word in (declared.image or "", declared.container_name or "", declared.podman.connection or ""):
        if word and not re.match(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*\Z", word):
            raise UsageError(f"{declared.name}: {word[:60]!r} is no name of an image, container or connection")
