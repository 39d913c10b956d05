"""A service's declaration: what it is, what it may use, how often it may restart. One TOML file a service."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from opsexec.errors import UsageError
from opsexec.toml_lines import line_of

MAX_BYTES = 256 << 10
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}\Z")


class BadDeclaration(UsageError):
    """A declaration that can't be used; the message starts with file:line."""

    code = "bad_declaration"


class Table(BaseModel):
    """A table of the file: nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Owner(Table):
    """`[owner]`: whom to ask."""

    project: str = ""
    component: str = ""
    contact: str = ""


class Auth(Table):
    """`[auth]`: which registry credentials the runtime may see."""

    mode: Literal["empty-authfile", "service-account", "none", "forbidden-ambient"] = "empty-authfile"
    authfile: str | None = None
    allow_ambient_docker_config: bool = False
    allow_interactive_credential_helper: bool = False


class Podman(Table):
    """`[podman]`: which podman, and what must be there before it starts."""

    connection: str | None = None
    pull: Literal["never", "explicit", "always"] = "never"
    require_machine: bool = False
    require_local_image: bool = True
    rootless: bool = False


class Lifecycle(Table):
    """`[lifecycle]`. Times in seconds."""

    run_at_load: bool = False
    keep_alive: bool = False
    restart: Literal["manual", "bounded", "supervised"] = "bounded"
    max_restarts_per_hour: int = Field(default=3, ge=0, le=3600)
    startup_timeout_seconds: int = Field(default=20, ge=1, le=3600)
    shutdown_timeout_seconds: int = Field(default=10, ge=1, le=3600)


class Logs(Table):
    """`[logs]`: absolute paths; without them the manager's journal has them."""

    app: str | None = None
    stdout: str | None = None
    stderr: str | None = None

    @property
    def paths(self) -> list[str]:
        """Those that are set."""
        return [path for path in (self.app, self.stdout, self.stderr) if path]


class Health(Table):
    """`[health]`: a command that ends with 0 when the service works. `timeout_seconds`: how long it may take."""

    type: Literal["none", "command"] = "none"
    expected: str | None = None
    command: list[str] = []
    timeout_seconds: int = Field(default=5, ge=1, le=60)


class Quarantine(Table):
    """`[quarantine]`: what a quarantine captures beside the definition."""

    logs: bool = True
    podman: bool = True
    image: bool = True
    auth: bool = True
    journal_lines: int = Field(default=2000, ge=0, le=100_000)


class Declaration(Table):
    """The whole file. `waive`: check id -> why its finding is accepted; `legacy`: definitions that must be gone.

    `exposure_budget`: the highest `systemd-analyze security` level that is accepted, 0 to 10.
    """

    name: str
    enable: bool = False
    scope: Literal["user", "system"] = "system"
    runtime: Literal["podman", "native", "nix-app", "systemd"] = "native"
    command: list[str] = []
    image: str | None = None
    container_name: str | None = None
    legacy: list[str] = []
    waive: dict[str, str] = {}
    exposure_budget: float = Field(default=9.0, ge=0, le=10)
    owner: Owner = Owner()
    auth: Auth = Auth()
    podman: Podman = Podman()
    lifecycle: Lifecycle = Lifecycle()
    logs: Logs = Logs()
    health: Health = Health()
    quarantine: Quarantine = Quarantine()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not NAME.match(name):
            raise ValueError("a name has letters, digits and _.@-, and begins with a letter or digit")
        return name


def parse_declaration(data: bytes, file: str) -> Declaration:
    """Return a declaration; raises BadDeclaration with file:line, and the nearest known key for one nobody knows."""
    if len(data) > MAX_BYTES:
        raise BadDeclaration(f"{file}: over {MAX_BYTES} bytes", hint="is it a declaration?")
    try:
        text = data.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise BadDeclaration(f"{file}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found[1]) if found else max(1, text.count("\n"))
        raise BadDeclaration(f"{file}:{line}: {str(error).partition(' (at ')[0]}", hint="it is TOML") from error
    except RecursionError as error:
        raise BadDeclaration(f"{file}: nested too deeply", hint="is it a declaration?") from error
    try:
        return Declaration.model_validate(tables)
    except ValidationError as error:
        faults = error.errors(include_url=False)  # an unknown key often is why another one is missing
        first = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
        path = [each for each in first["loc"] if isinstance(each, str)]
        message, hint = _sentence(first, path)
        raise BadDeclaration(f"{file}:{line_of(text, path)}: {message}", hint=hint) from error


def _sentence(fault: ErrorDetails, path: Sequence[str]) -> tuple[str, str | None]:
    where = ".".join(path) or "the file"
    if fault["type"] == "extra_forbidden":
        known = _keys(path)
        near = difflib.get_close_matches(path[-1], known, n=1)
        return f"unknown key {path[-1][:60]!r}", f'did you mean "{near[0]}"?' if near else "known: " + ", ".join(known)
    if fault["type"] == "missing":
        return f"{where} is missing", "see docs/doctor.md"
    text = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {text[:1].lower()}{text[1:]}", None


def _keys(path: Sequence[str]) -> list[str]:
    """Return the keys that may stand beside the last one of a path."""
    table: type[BaseModel] = Declaration
    for name in path[:-1]:
        kind = table.model_fields[name].annotation if name in table.model_fields else None
        if isinstance(kind, type) and issubclass(kind, Table):
            table = kind
    return list(table.model_fields)
