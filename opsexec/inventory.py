"""Inventory: the hosts, their groups, variables and what may be asked of them."""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgspec

from opsexec.capability import Capability, CapabilitySet
from opsexec.errors import BadInventory, OpsError
from opsexec.host_sources import ssh_config_hosts, tailnet_hosts
from opsexec.patterns import ALL, Pattern, is_plain
from opsexec.secret_source import SecretSource, secret_source
from opsexec.toml_lines import line_of

SCHEMES = ("local", "ssh", "agent+unix", "agent+ssh", "agent+tcp", "tailnet")
"""What an executor URL may start with."""

MAX_INVENTORY_BYTES = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TOP_KEYS = ("hosts", "sources")
_SOURCE_KEYS = ("ssh_config", "tailnet")
HERE = Path("inventory.toml")
"""Read when nobody named another, and so also in a directory that somebody else filled: a clone, an archive."""

Problem = Callable[[str, tuple[str, ...], str | None], NoReturn]


class InventoryHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `capabilities` None = everything; `run_as`: users beside the login; then the ssh options."""

    name: str
    url: str
    groups: tuple[str, ...] = ()
    vars: dict[str, Any] = {}
    capabilities: tuple[str, ...] | None = None
    run_as: tuple[str, ...] | None = None
    identity_files: tuple[str, ...] = ()
    known_hosts: str | None = None
    host_keys: str = "strict"
    jump: str | None = None
    config_files: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The groups, and the value of a `tier` variable: `&prod` finds a host with `tier = "prod"`."""
        tier = self.vars.get("tier")
        if isinstance(tier, str) and tier not in self.groups:
            return (*self.groups, tier)
        return self.groups

    def capability_set(self) -> CapabilitySet:
        """Return what an executor for this host may ask of it, as far as the inventory says."""
        if self.capabilities is None:
            everything = CapabilitySet.everything()
            return everything if self.run_as is None else everything & _any_as(self.run_as)
        return CapabilitySet.of(*self.capabilities, run_as=self.run_as or ())


def _any_as(users: Iterable[str]) -> CapabilitySet:
    from opsexec.verbs import ANY_PATTERN, VERBS

    return CapabilitySet.of(*(f"{name}:{ANY_PATTERN[verb.kind]}" for name, verb in VERBS.items()), run_as=users)


class Inventory:
    """Hosts by name, in order. Build it with `load` (file and sources), `parse` (text) or from hosts."""

    def __init__(self, hosts: Iterable[InventoryHost] = (), *, file: str | None = None) -> None:
        self.hosts: dict[str, InventoryHost] = {}
        for host in hosts:
            if host.name != host.url and (is_url(host.name) or not is_plain(host.name)):
                raise BadInventory(
                    f"{host.name[:60]!r} can't be a host's name", hint="a pattern would take it for something else"
                )
            if self.hosts.setdefault(host.name, host) is not host:
                raise BadInventory(f"two hosts are named {host.name!r}", hint="give each a name of its own")
        self.file = file

    @classmethod
    async def load(cls, path: str | os.PathLike[str] | None = None) -> Inventory:
        """Load the inventory and its sources.

        Looks at `path`, else `$OPSEXEC_INVENTORY`, else `./inventory.toml`, else
        `~/.config/opsexec/inventory.toml`; with none of them the inventory is empty. Raises BadInventory,
        also for a file that nobody named and that another user may write, and for a `./inventory.toml` that nobody
        named and that names an ssh_config file.
        """
        found = find_inventory(path)
        if found is None:
            return cls()
        try:
            with found.open("rb") as file:
                if not _named(path):
                    _require_own(found, os.fstat(file.fileno()))
                data = file.read(MAX_INVENTORY_BYTES + 1)
        except OSError as error:
            raise BadInventory(f"{found}: can't be read ({error.strerror})", hint="name another with -i") from error
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInventory(f"{found}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
        tables, sources, problem = _tables(text, str(found))
        if not _named(path) and found == HERE:
            _require_no_commands(tables, sources, problem)
        return cls(_hosts(await _with_sources(tables, sources, problem), problem), file=str(found))

    @classmethod
    def parse(cls, text: str, file: str = "inventory.toml") -> Inventory:
        """Parse TOML text that names no sources; raises BadInventory with file:line."""
        tables, sources, problem = _tables(text, file)
        if sources:
            problem("[sources] are read by Inventory.load()", ("sources",), "load it from a file")
        return cls(_hosts(tables, problem), file=file)

    def select(self, pattern: str) -> list[InventoryHost]:
        """Return the hosts a pattern selects; an executor URL is a host of its own.

        Raises NoHostMatches for a pattern that selects none, BadInventory for a URL that can't be one.
        """
        if is_url(pattern):
            return [host_from_url(pattern)]
        return Pattern.parse(pattern).select(list(self.hosts.values()))

    def __len__(self) -> int:
        return len(self.hosts)


def find_inventory(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the inventory file to use, or None when none was named and none stands in the usual places."""
    if named := _named(path):
        return Path(os.path.expanduser(named))
    for usual in (HERE, Path(os.path.expanduser("~/.config/opsexec/inventory.toml"))):
        if usual.is_file():
            return usual
    return None


def _named(path: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(path) if path is not None else os.environ.get("OPSEXEC_INVENTORY")


def _require_own(found: Path, opened: os.stat_result) -> None:
    """Raise BadInventory for a file that merely lies there (in /tmp, say) and is another user's or writable for all.

    An inventory names ssh_config files, and those name commands to run here.
    """
    if {found.lstat().st_uid, opened.st_uid} - {0, os.geteuid()} or opened.st_mode & stat.S_IWOTH:
        raise BadInventory(
            f"{found.absolute()} is another user's or writable for all", hint=f"if you trust it: -i {found}"
        )


def _require_no_commands(tables: Mapping[str, Any], sources: Mapping[str, Any], problem: Problem) -> None:
    """Raise BadInventory for an ssh_config file: it names commands to run here (ProxyCommand, Match exec)."""
    named: list[tuple[str, ...]] = []
    if isinstance(sources.get("ssh_config"), str):
        named.append(("sources", "ssh_config"))
    named += [("hosts", name, "config_files") for name, table in tables.items() if _names_config(table)]
    for at in named:
        text = "it names an ssh_config file, which may run commands here, and nobody named this inventory"
        problem(text, at, f"if you trust it: -i {HERE}")


def _names_config(table: Any) -> bool:
    return isinstance(table, dict) and bool(table.get("config_files"))


def is_url(text: str) -> bool:
    """True when HOST text is an executor URL rather than a pattern."""
    match = _SCHEME.match(text)
    return match is not None and (match[1] in SCHEMES or text.startswith(f"{match[1]}://"))


def host_from_url(url: str) -> InventoryHost:
    """Return a host that stands in no inventory, named by its URL; raises BadInventory for a bad URL."""
    fault = _url_fault(url)
    if fault is not None:
        raise BadInventory(fault[0], hint=fault[1])
    return InventoryHost(name=url, url=url)


def _url_fault(url: str) -> tuple[str, str] | None:
    """Return what is wrong with an executor URL and a hint, or None."""
    match = _SCHEME.match(url)
    if match is None:
        return f"{url[:80]!r} is not an executor URL", "write it like ssh://user@host:22 or local:"
    if match[1] not in SCHEMES:
        near = difflib.get_close_matches(match[1], SCHEMES, n=1)
        return (
            f"unknown scheme {match[1]!r} in a URL",
            f"did you mean {near[0]}:?" if near else f"use {', '.join(SCHEMES)}",
        )
    if not url.isprintable() or " " in url:
        return "the URL holds a space or a control character", "write it like ssh://user@host:22"
    if match[1] == "local":
        return None if url in ("local:", "local://") else (f"{url[:80]!r} names a host", 'this machine is "local:"')
    try:
        parts = urlsplit(url)
        secret, port = parts.password, parts.port
    except ValueError as error:
        return f"{url[:80]!r} is not a URL ({error})", "write it like ssh://user@host:22"
    if secret is not None:
        return "a password stands in the URL", "use SSH keys; passwords have no place in an inventory"
    if match[1] == "agent+unix":
        return None if parts.path.startswith("/") else ("agent+unix needs an absolute path", "agent+unix:///run/x.sock")
    if not parts.hostname or port == 0:
        return f"{url[:80]!r} names no host", "write it like ssh://user@host:22"
    if match[1] != "agent+ssh" and (parts.path not in ("", "/") or "?" in url or "#" in url):
        return f"{url[:80]!r} goes on after the host", f"write it like {match[1]}://{parts.netloc}"
    return None


def _tables(text: str, file: str) -> tuple[dict[str, Any], dict[str, Any], Problem]:
    """Return the host tables, the sources, and a function that raises BadInventory at the line of a path."""

    def problem(message: str, path: tuple[str, ...], hint: str | None) -> NoReturn:
        raise BadInventory(f"{file}:{line_of(text, path)}: {message}", hint=hint)

    if len(text) > MAX_INVENTORY_BYTES:
        problem(f"over {MAX_INVENTORY_BYTES} bytes", (), "split it, or use [sources]")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = at[1] if at else max(1, text.count("\n"))
        raise BadInventory(f"{file}:{line}: {str(error).partition(' (at ')[0]}", hint="it is TOML") from error
    except ValueError as error:  # an integer of more digits than int() takes, a date that no calendar has
        raise BadInventory(f"{file}:1: a value that can't be read: {error}", hint="it is TOML") from error
    except RecursionError as error:
        raise BadInventory(f"{file}:1: nested too deep", hint="an inventory needs three levels") from error
    _known(data, _TOP_KEYS, (), problem)
    hosts, sources = data.get("hosts", {}), data.get("sources", {})
    if not isinstance(hosts, dict):
        problem("hosts is not a table", ("hosts",), "write [hosts.NAME]")
    if not isinstance(sources, dict):
        problem("sources is not a table", ("sources",), "write [sources]")
    _known(sources, _SOURCE_KEYS, ("sources",), problem)
    return hosts, sources, problem


async def _with_sources(tables: dict[str, Any], sources: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """Add the sources' hosts. A table of the same name wins key by key."""
    found: dict[str, dict[str, Any]] = {}
    ssh = sources.get("ssh_config", False)
    if isinstance(ssh, str) or ssh is True:
        path = Path(ssh if isinstance(ssh, str) else "~/.ssh/config")
        extra = {"config_files": [os.path.expanduser(path)]} if isinstance(ssh, str) else {}
        for name in ssh_config_hosts(path):
            found[name] = {"url": f"ssh://{name}", "groups": ["ssh_config"], **extra}
    elif ssh is not False:
        problem("ssh_config is neither true, false nor a path", ("sources", "ssh_config"), None)
    tailnet = sources.get("tailnet", False)
    if isinstance(tailnet, dict) or tailnet is True:
        wanted = tailnet if isinstance(tailnet, dict) else {}
        _known(wanted, ("tags",), ("sources", "tailnet"), problem)
        tags = _words(wanted.get("tags", []), ("sources", "tailnet", "tags"), problem)
        for name, carried in await tailnet_hosts(tags):
            groups = ["tailnet", *(tag.removeprefix("tag:") for tag in carried)]
            found[name] = {"url": f"tailnet://{name}", "groups": groups}
    elif tailnet is not False:
        problem(
            "tailnet is neither true, false nor a table",
            ("sources", "tailnet"),
            'tailnet = { tags = ["tag:x"] }',
        )
    for name, table in tables.items():
        found[name] = {**found.get(name, {}), **table} if isinstance(table, dict) else table
    return found


HOST_KEYS = tuple(name for name in InventoryHost.__struct_fields__ if name != "name")


def _hosts(tables: Mapping[str, Any], problem: Problem) -> list[InventoryHost]:
    return [_host(name, table, problem) for name, table in tables.items()]


def _host(name: str, table: Any, problem: Problem) -> InventoryHost:
    at = ("hosts", name)
    if not isinstance(table, dict):
        problem(f"host {name!r} is not a table", at, f"write [hosts.{name}]")
    if not _NAME.match(name) or name == ALL:
        problem(f"{name[:60]!r} can't be a host's name", at, "letters, digits and _ . - (`all` means every host)")
    _known(table, HOST_KEYS, at, problem)
    url = table.get("url")
    if not isinstance(url, str):
        wrong, place = ("has no url", at) if url is None else ("has a url that is no text", (*at, "url"))
        problem(f"host {name!r} {wrong}", place, 'like url = "ssh://user@host:22"')
    fault = _url_fault(url)
    if fault is not None:
        problem(fault[0], (*at, "url"), fault[1])
    values: dict[str, Any] = {
        "name": name,
        "url": url,
        "vars": _vars(table.get("vars", {}), (*at, "vars"), problem),
    }
    for key in ("groups", "capabilities", "run_as", "identity_files", "config_files"):
        if key in table:
            values[key] = _words(table[key], (*at, key), problem)
    for group in values.get("groups", ()):
        if not _NAME.match(group) or group == ALL:
            problem(f"{group[:60]!r} can't be a group's name", (*at, "groups"), "letters, digits and _ . -")
    for text in values.get("capabilities", ()):
        try:
            Capability.parse(text)
        except OpsError as error:
            problem(error.message, (*at, "capabilities"), error.hint)
    for key in ("known_hosts", "jump", "host_keys"):
        if key in table:
            if not isinstance(table[key], str):
                problem(f"{key} is not text", (*at, key), None)
            values[key] = table[key]
    if values.get("host_keys", "strict") not in ("strict", "accept-new"):
        problem(f"host_keys is {values['host_keys']!r}", (*at, "host_keys"), 'either "strict" or "accept-new"')
    return InventoryHost(**values)


def _vars(value: Any, at: tuple[str, ...], problem: Problem) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem("vars is not a table", at, 'like vars = { tier = "dev" }')
    return {name: _variable(name, each, (*at, name), problem) for name, each in value.items()}


def _variable(name: str, value: Any, at: tuple[str, ...], problem: Problem) -> Any:
    """Return a variable's value or its SecretSource; raises where it is not plain data."""
    if not _VARIABLE.match(name):
        problem(f"{name[:60]!r} can't be a variable's name", at, "letters, digits, _ and -")
    if isinstance(value, dict):
        try:
            source: SecretSource | None = secret_source(value)
        except OpsError as error:
            problem(error.message, at, error.hint)
        if source is not None:
            return source
    if not _plain(value):
        problem(f"the value of {name} is a date, a time or not finite", at, "quote it, as text")
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(each) for each in value.values())
    if isinstance(value, list):
        return all(_plain(each) for each in value)
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _words(value: Any, at: tuple[str, ...], problem: Problem) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        problem(f"{at[-1]} is not a list of texts", at, f'like {at[-1]} = ["..."]')
    return tuple(value)


def _known(table: Mapping[str, Any], keys: tuple[str, ...], at: tuple[str, ...], problem: Problem) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f'did you mean "{near[0]}"?' if near else "known keys: " + ", ".join(keys)
            problem(f"unknown key {key!r}", (*at, key), hint)
