"""config.toml: what an agent listens on, who may do what, and its limits. Anything unclear in it is refused."""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from agent.address import Address, require_bottles_apart, require_plain_path
from agent.bottle_grant import check_bottle_grant
from agent.config_lines import place
from agent.errors import BadConfig
from agent.principal import BOTTLE, UidOf, check_principal
from opsexec.capability import CapabilitySet
from opsexec.errors import OpsError
from opsexec.hosts.local_api import DEFAULT_LOCAL_API

MAX_CONFIG_BYTES = 1 << 20
MAX_INTEGER = (1 << 63) - 1
"""The largest that TOML promises, and that the wire carries to who asks for their grants."""


class Table(BaseModel):
    """A table of the file: nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


OURS = "opsexec"
EXAMPLE = "see examples/ops-agent.toml"


@contextmanager
def _located() -> Iterator[None]:
    """Turn an OpsError into one that pydantic gives a place in the file."""
    try:
        yield
    except OpsError as error:
        context = {"message": error.message, "hint": error.hint}
        raise PydanticCustomError(OURS, "{message}", context) from error


def _plain(path: str) -> str:
    with _located():
        require_plain_path(path)
    return path


PlainPath = Annotated[str, AfterValidator(_plain)]
"""An absolute path in its one plain form."""


class AgentTable(Table):
    """`[agent]`. `name`: how audit and errors call this host; `socket_mode`, `socket_group`: of every unix socket.

    `container_sockets`: of the container engines whose events are told, None = where they usually are. `nice`: the
    agent's own priority, as setpriority(2) counts; what it starts has the usual one.
    """

    listen: list[str] = Field(min_length=1)
    state_dir: PlainPath
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=253)
    socket_mode: str = Field(default="0660", pattern=r"^0[0-7]{3}$")
    socket_group: str | None = None
    container_sockets: list[str] | None = None
    nice: int = Field(default=0, ge=-20, le=0)

    @field_validator("listen")
    @classmethod
    def _addresses(cls, listen: list[str]) -> list[str]:
        with _located():
            for each in listen:
                Address.parse(each)
            if len(set(listen)) < len(listen):
                raise BadConfig("an address stands twice", hint="name each once")
            require_bottles_apart([Address.parse(each) for each in listen])
        return listen

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses to listen on."""
        return tuple(Address.parse(each) for each in self.listen)


class Limits(Table):
    """`[limits]`. Times in seconds, sizes in bytes."""

    max_connections: int = Field(default=512, ge=1, le=100_000)
    max_connections_per_principal: int = Field(default=128, ge=1, le=100_000)
    max_runs_per_principal: int = Field(default=32, ge=1, le=10_000)
    max_request_bytes: int = Field(default=16 << 20, ge=1024, le=1 << 30)
    max_output_bytes: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    max_timeout_s: float | None = Field(default=None, gt=0)
    request_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    idle_timeout_s: float = Field(default=60.0, ge=1, le=3600)
    stall_timeout_s: float = Field(default=900.0, gt=0)
    max_run_log_bytes: int = Field(default=256 << 20, ge=1 << 16, le=MAX_INTEGER)
    keep_runs: int = Field(default=200, ge=0, le=100_000)
    keep_runs_bytes: int = Field(default=4 << 30, ge=0, le=MAX_INTEGER)


class Consent(Table):
    """`[consent]`: who on this host is asked before a terminal opens. `always`: for each, whatever its grant says.

    `users`: of this host, like "unix:alice"; `timeout_s`: seconds after which no answer is a no.
    """

    users: list[str] = []
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    always: bool = False


class RecordingLimits(Table):
    """`[recordings]` of terminals: how many are kept, bytes in all and of each; `input`: keys, and so passwords, too.

    `link_s`: seconds between links that go into the audit, while a recording grows.
    """

    keep: int = Field(default=1000, ge=1, le=100_000)
    keep_bytes: int = Field(default=8 << 30, ge=1 << 20, le=MAX_INTEGER)
    max_bytes: int = Field(default=256 << 20, ge=1 << 16, le=MAX_INTEGER)
    input: bool = False
    link_s: float = Field(default=5.0, ge=0.1, le=60.0)


class TailnetTable(Table):
    """`[tailnet]`. `socket`: tailscaled's LocalAPI; `program`: asked where there is no such socket."""

    socket: PlainPath = DEFAULT_LOCAL_API
    program: PlainPath | None = "/usr/bin/tailscale"


class AuditTable(Table):
    """`[audit]`. `host_key`: the SSH key that signs heads of the chain, None = the host's own, where it can be read.

    `sign_every_s`: seconds between signatures at most, while lines are added.
    """

    sign: bool = True
    host_key: PlainPath | None = None
    sign_every_s: float = Field(default=60.0, ge=1, le=86400)


class Grant(Table):
    """One `[[grants]]`: what a principal may do here, at most."""

    principal: str
    capabilities: list[str]
    run_as: list[str] = []
    max_timeout_s: float | None = Field(default=None, gt=0)
    max_output_bytes: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    consent: Literal["none", "ask"] = "none"

    @field_validator("capabilities")
    @classmethod
    def _parsed(cls, capabilities: list[str]) -> list[str]:
        with _located():
            CapabilitySet.of(*capabilities)
        return capabilities

    @property
    def capability_set(self) -> CapabilitySet:
        """The grant as a set."""
        return CapabilitySet.of(
            *self.capabilities,
            run_as=self.run_as,
            max_timeout_s=self.max_timeout_s,
            max_output_bytes=self.max_output_bytes,
        )


class Config(Table):
    """The whole file."""

    agent: AgentTable
    tailnet: TailnetTable = TailnetTable()
    limits: Limits = Limits()
    audit: AuditTable = AuditTable()
    consent: Consent = Consent()
    recordings: RecordingLimits = RecordingLimits()
    grants: list[Grant] = []


def load_config(path: str | Path) -> Config:
    """Read and check a config file; raises BadConfig with file:line and what to do."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise BadConfig(f"{file}: can't be read ({error.strerror})", hint="name another with --config") from error
    return parse_config_bytes(data, str(file))


def parse_config_bytes(data: bytes, file: str, uid_of: UidOf | None = None) -> Config:
    """Check a config file's content, of this host or another, whose users `uid_of` knows; raises BadConfig."""
    if len(data) > MAX_CONFIG_BYTES:
        raise BadConfig(f"{file}: over {MAX_CONFIG_BYTES} bytes", hint="is it a config file?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadConfig(f"{file}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    return parse_config(text, file, uid_of)


def parse_config(text: str, file: str = "config.toml", uid_of: UidOf | None = None) -> Config:
    """Check the text of a config file; raises BadConfig with file:line."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(found[1]) if found else max(1, text.count("\n"))
        raise BadConfig(f"{file}:{line}: {str(error).partition(' (at ')[0]}", hint="it is TOML") from error
    except RecursionError as error:
        raise BadConfig(f"{file}: nested too deeply", hint="is it a config file?") from error
    except ValueError as error:  # Python reads no integer of over 4300 digits
        raise BadConfig(f"{file}: a number in it is too long", hint="leave out a limit that is to be none") from error
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        faults = error.errors(include_url=False)  # an unknown key often is why another one is missing
        first = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
        message, hint = _sentence(first)
        raise BadConfig(f"{file}:{place(text, first['loc'])}: {message}", hint=hint) from error
    kinds = {address.proves for address in config.agent.addresses}
    for at, grant in enumerate(config.grants):
        try:
            check_principal(grant.principal, kinds, uid_of)
            if grant.principal.startswith(BOTTLE):
                names = {address.identity for address in config.agent.addresses if address.proves == "bottle"}
                check_bottle_grant(grant.principal, names, grant.capabilities, grant.run_as)
        except OpsError as error:
            where = place(text, ("grants", at, "principal"))
            raise BadConfig(f"{file}:{where}: {error.message}", hint=error.hint) from error
    _require_somebody_to_ask(config, kinds, text, file, uid_of)
    return config


def _require_somebody_to_ask(
    config: Config, kinds: Collection[str], text: str, file: str, uid_of: UidOf | None
) -> None:
    """Raise BadConfig for a person to ask who can't be one, and for a grant under which nobody can be asked."""
    for at, user in enumerate(config.consent.users):
        try:
            check_principal(user, {"unix"} & set(kinds), uid_of)
        except OpsError as error:
            where = place(text, ("consent", "users", at))
            raise BadConfig(f"{file}:{where}: {error.message}", hint="a user of this host, who can say yes") from error
    for at, grant in enumerate(config.grants):
        asks = grant.consent == "ask" or config.consent.always
        if asks and not set(config.consent.users) - {grant.principal}:
            where = place(text, ("grants", at, "consent" if grant.consent == "ask" else "principal"))
            reason = "nobody but this principal itself could be asked for consent"
            raise BadConfig(f"{file}:{where}: {reason}", hint='name users in [consent], like users = ["unix:alice"]')


def _sentence(fault: ErrorDetails) -> tuple[str, str]:
    """Return what is wrong in one sentence, and what to do."""
    where = ".".join(str(each) for each in fault["loc"] if isinstance(each, str)) or "the file"
    if fault["type"] == OURS:
        return f"{where}: {fault['ctx']['message']}", fault["ctx"]["hint"]
    if fault["type"] == "extra_forbidden":
        known = _keys(fault["loc"])
        name = str(fault["loc"][-1])
        near = difflib.get_close_matches(name, known, n=1)
        return f"unknown key {name!r}", f'did you mean "{near[0]}"?' if near else "known keys: " + ", ".join(known)
    if fault["type"] == "missing":
        return f"{where} is missing", EXAMPLE
    hint = 'like "0660"' if where == "agent.socket_mode" else EXAMPLE
    return f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}", hint


def _keys(path: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand beside the last one of a path."""
    tables: dict[str | int, type[Table]] = {
        "agent": AgentTable,
        "audit": AuditTable,
        "tailnet": TailnetTable,
        "limits": Limits,
        "consent": Consent,
        "recordings": RecordingLimits,
        "grants": Grant,
    }
    return list((tables[path[0]] if len(path) > 1 else Config).model_fields)
