"""Where manifests are read from. The home root grants; a repository may only say who runs in what is granted."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bottle.errors import BadManifest
from bottle.manifest import extends
from bottle.manifest.document import Document, from_object, parse_markdown, text_digest
from bottle.manifest.kinds import Agent, Bottle, Source
from bottle.manifest.names import FILE_NAME, MANIFEST_NAME
from opsexec.plain_file import NotPlain, read_plain
from opsexec.runbook.reference import nearest

DIRECTORY = ".bot-bottle"
LEGACY = "bot-bottle.json"
MAX_BYTES = 512 << 10


class Loaded(NamedTuple):
    """An agent with its bottle, merged and validated; `prompt` is the file's body, the operator's own words."""

    name: str
    agent: Agent
    prompt: str
    bottle: Bottle
    source: Source
    sources: tuple[Source, ...]


class Text(NamedTuple):
    """A manifest's file as it was read, not looked at yet."""

    where: str
    text: str

    @property
    def digest(self) -> str:
        """sha256 of the text, in hex."""
        return text_digest(self.text)


Read = Document | Text | BadManifest
"""A manifest, or why there is none to be had."""


class Entry(NamedTuple):
    """One agent's manifest. `trusted`: it comes from the home root."""

    document: Read
    trusted: bool


class Manifests:
    """Every manifest in sight. Each is validated when it is asked for: one bad file doesn't hide the others."""

    def __init__(
        self, bottles: Mapping[str, Read], agents: Mapping[str, Entry], warnings: tuple[str, ...] = ()
    ) -> None:
        self._bottles = bottles
        self._agents = agents
        self.warnings = warnings

    @property
    def agents(self) -> list[str]:
        """Names of the agents, sorted."""
        return sorted(self._agents)

    @property
    def bottles(self) -> list[str]:
        """Names of the bottles, sorted."""
        return sorted(self._bottles)

    def load(self, name: str) -> Loaded:
        """Return an agent with its bottle; raises BadManifest."""
        # Here and not above: what was read before goes on without it (bottle/manifest/kept.py). No plugin has a say in
        # what a manifest means, and looking for one takes a tenth of the import.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        from bottle.manifest.validate import read_agent

        entry = self._agents.get(name)
        if entry is None:
            raise BadManifest(f"there is no agent {name!r}", hint=nearest(name, self._agents))
        document = _readable(entry.document)
        agent = read_agent(document)
        used: list[Source] = [_source(document, entry.trusted)]
        if agent.bottle not in self._bottles:
            place = document.place(("bottle",))
            raise BadManifest(
                f"{place}: there is no bottle {agent.bottle!r}", hint=nearest(agent.bottle, self._bottles)
            )
        merged = self._merged(agent.bottle, used)
        return Loaded(name, agent, document.body, merged, used[0], tuple(used))

    def _merged(self, name: str, used: list[Source]) -> Bottle:
        """Return a bottle with all that it extends; `used` gets where each came from. Raises BadManifest."""
        from bottle.manifest.validate import read_bottle

        def read(bottle: str) -> tuple[Bottle, str]:
            found = _readable(self._bottles[bottle])
            used.append(_source(found, True))
            bottle_itself = read_bottle(found)
            _require_provider(found, bottle_itself)
            return bottle_itself, found.place(("extends",))

        return extends.resolve(name, read, lambda: self.bottles)

    def problems(self) -> list[str]:
        """Return why each bottle or agent that can't be had can't, and which files were left out: each once."""
        found = []
        for names, load in ((self.bottles, lambda name: self._merged(name, [])), (self.agents, self.load)):
            for name in names:
                try:
                    load(name)
                except BadManifest as error:
                    found.append(error.message)
        return list(dict.fromkeys([*found, *self.warnings]))

    def holds(self, agent: str, sources: Sequence[Source]) -> bool:
        """True when these, an agent's and then its bottles' in order, are what `load` would read now, word for word."""
        entry = self._agents.get(agent)
        if entry is None or not sources:
            return False
        bottles = [self._bottles.get(Path(each.where).stem) for each in sources[1:]]
        found = [(entry.document, entry.trusted), *((each, True) for each in bottles)]
        return all(
            isinstance(read, (Document, Text)) and _source(read, trusted) == source
            for (read, trusted), source in zip(found, sources, strict=True)
        )


def _require_provider(document: Document, bottle: Bottle) -> None:
    """Raise BadManifest, with the place, for a provider that nobody registered."""
    from bottle.providers.registry import require_known

    if bottle.agent_provider is not None:
        try:
            require_known(bottle.agent_provider.template)
        except BadManifest as error:
            place = document.place(("agent_provider", "template"))
            raise BadManifest(f"{place}: agent_provider.template: {error.message}", hint=error.hint) from None


def _readable(read: Read) -> Document:
    if isinstance(read, BadManifest):
        raise read
    return parse_markdown(read.text, read.where) if isinstance(read, Text) else read


def _source(document: Document | Text, trusted: bool) -> Source:
    return Source(where=document.where, digest=document.digest, trusted=trusted)


def home_root() -> Path:
    """Return `$BOT_BOTTLE_ROOT`, else `~/.bot-bottle`; raises BadManifest for who has no home."""
    named = os.environ.get("BOT_BOTTLE_ROOT")
    if named:
        return Path(named)
    try:
        return Path.home() / DIRECTORY
    except RuntimeError:
        text = f"there is no home directory for uid {os.geteuid()}, so no place for manifests"
        raise BadManifest(text, hint="set BOT_BOTTLE_ROOT, or HOME") from None


def load_directories(root: Path | None = None, cwd: Path | None = None) -> Manifests:
    """Read bottles from the home root, and agents from it and from `cwd`; an agent of `cwd` wins over its namesake.

    Raises BadManifest for a legacy file without its directory, and for a home root that others may write.
    """
    root = root if root is not None else home_root()
    warnings: list[str] = []
    _refuse_legacy(root.parent / LEGACY, root)
    bottles = {each.stem: _attempt(each, owned=True) for each in _files(root / "bottles", warnings, owned=True)}
    agents = {
        each.stem: Entry(_attempt(each, owned=True), trusted=True)
        for each in _files(root / "agents", warnings, owned=True)
    }
    local = None if cwd is None else cwd / DIRECTORY
    if local is not None and cwd is not None and local.absolute() != root.absolute():
        _refuse_legacy(cwd / LEGACY, local)
        if (local / "bottles").exists():
            warnings.append(f"{local / 'bottles'}: left out, bottles come from {root} only")
        for each in _files(local / "agents", warnings, owned=False):
            agents[each.stem] = Entry(_attempt(each, owned=False), trusted=False)
    return Manifests(bottles, agents, tuple(warnings))


def load_object(data: object) -> Manifests:
    """Take `{"bottles": {name: {...}}, "agents": {name: {..., "prompt": text}}}`; the validator is the files' own."""
    whole = from_object(data, "object").data
    for key in whole:
        if key not in ("bottles", "agents"):
            raise BadManifest(f"object: unknown key {key[:60]!r}", hint="allowed: bottles, agents")
    found: dict[str, dict[str, Document]] = {}
    for kind in ("bottles", "agents"):
        named = whole.get(kind, {})
        if not isinstance(named, Mapping):
            raise BadManifest(f"object: {kind} is not a map", hint="give name: {...}")
        for name in named:
            if not MANIFEST_NAME.match(name):
                raise BadManifest(f"object: {name[:60]!r} in {kind} is no name", hint="lower-case letters, digits, -")
        found[kind] = {name: from_object(each, f"{kind}.{name}") for name, each in named.items()}
    agents = {name: Entry(document, trusted=True) for name, document in found["agents"].items()}
    return Manifests(dict(found["bottles"]), agents)


def _refuse_legacy(file: Path, directory: Path) -> None:
    if file.exists() and not directory.is_dir():
        hint = f"write each bottle to {directory}/bottles/<name>.md and each agent to {directory}/agents/<name>.md"
        raise BadManifest(f"{file}: this one file was replaced by a directory of manifests", hint=hint)


def _files(directory: Path, warnings: list[str], *, owned: bool) -> list[Path]:
    """Return the manifests of a directory, sorted; files of another name are left out with a warning."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadManifest(f"{directory}: can't be read ({error.strerror})", hint="check its mode") from error
    if owned:
        _require_ours(directory.parent)
        _require_ours(directory)
    found = []
    for name in names:
        if FILE_NAME.match(name):
            found.append(directory / name)
        elif not name.startswith("."):
            warnings.append(
                f"{directory / name!s}: left out, a manifest's name is like web-agent.md, 64 characters at most"
            )
    return found


def _require_ours(path: Path) -> None:
    """Raise BadManifest unless a place of the home root is a real one that only its owner (or root) may change."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        raise BadManifest(f"{path}: is a symbolic link", hint="what grants is kept where it says: move it here")
    if info.st_mode & 0o022:
        hint = f"chmod go-w {path}"
        raise BadManifest(f"{path}: others may write it (mode {stat.S_IMODE(info.st_mode):04o})", hint=hint)
    if info.st_uid not in (0, os.geteuid()):
        raise BadManifest(f"{path}: belongs to uid {info.st_uid}, not to you", hint="own it, then read it again")


def _attempt(path: Path, *, owned: bool) -> Text | BadManifest:
    try:
        return _read(path, owned=owned)
    except BadManifest as error:  # told to whoever asks for this one; the others stay usable
        return error


def read_ours(path: Path, max_bytes: int) -> bytes:
    """Return a plain file's bytes that only its owner or root may change, nor the directory it is in."""
    _require_ours(path.parent)
    return _bytes(path, max_bytes, owned=True)


def _read(path: Path, *, owned: bool) -> Text:
    """Read one manifest."""
    data = _bytes(path, MAX_BYTES, owned=owned)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadManifest(f"{path}:{line}: not UTF-8", hint="save it as UTF-8") from error
    return Text(str(path), text)


def _bytes(path: Path, max_bytes: int, *, owned: bool) -> bytes:
    """Read one file, opened once, so that what was checked is what is read."""
    if owned:
        _require_ours(path)
    try:
        data, _ = read_plain(path, max_bytes)
    except OSError as error:
        raise BadManifest(f"{path}: can't be read ({error.strerror})", hint="a manifest is a plain file") from error
    except NotPlain as error:
        raise BadManifest(f"{path}: not a plain file", hint="a manifest is a plain file") from error
    if len(data) > max_bytes:
        raise BadManifest(f"{path}: over {max_bytes >> 10} KiB", hint="a manifest is short")
    return data
