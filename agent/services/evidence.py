"""What a quarantine captures before it touches anything: definition, logs, podman's state, images, credentials."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from agent.services.acts import ENDING, now
from agent.services.checks.auth import ambient_files
from agent.services.checks.lint_exec import starts
from agent.services.checks.podman import link_of
from agent.services.command_line import redirections, split_exec
from agent.services.definition import as_it_stands, scripts
from agent.services.launchd_redaction import page_apart, plist_apart
from agent.services.probe import Said, Unreadable
from agent.services.redaction import Apart, Redactor
from agent.services.secret_shapes import mask
from opsexec.errors import OpsError
from opsexec.steps import ReadFile

if TYPE_CHECKING:
    from agent.services.declaration import Quarantine
    from agent.services.manager import Manager

Form = Literal["text", "json", "environment", "plist", "launchctl"]
FILE_BYTES = 1 << 20
"""The most that is kept of one source, in bytes; of a longer log its end."""
CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}\Z")
MOST = 200
TOTAL_BYTES = 24 << 20
"""How many sources one bundle holds at most, and how many bytes of them."""


class Source(msgspec.Struct, kw_only=True):
    """One thing that was read. `file`: its name in the bundle; `origin`: its path on the host, where it has one."""

    id: str
    file: str
    form: Form
    argv: list[str]
    data: bytes
    rc: int = 0
    started_at: str = ""
    duration_ms: int = 0
    origin: str | None = None
    mode: str | None = None
    owner: str | None = None


class Captured(msgspec.Struct, kw_only=True):
    """All of it; `incomplete`: what could not be read, and why. `containers`: those that are the service's."""

    sources: list[Source] = []
    incomplete: list[str] = []
    containers: list[str] = []


class Capture:
    """Reads one service's evidence; nothing here changes the host, and what can't be read is said, never fatal."""

    def __init__(self, manager: Manager, wanted: Quarantine) -> None:
        self._manager = manager
        self._look = manager.look
        self._state = manager.places.state
        self._wanted = wanted
        self.found = Captured()

    async def take(self) -> Captured:
        """Return everything."""
        for each in self._manager.evidence():
            await self._ask(each.id, each.file, each.question, each.subject, form=each.form)
        await self._definition()
        if self._wanted.logs:
            await self._logs()
        if self._wanted.podman:
            await self._podman()
        if self._wanted.image:
            await self._images()
        if self._wanted.auth:
            await self._credentials()
        return self.found

    async def _definition(self) -> None:
        try:
            found = await as_it_stands(self._look)
        except Unreadable as error:
            self._missing("definition", error.reason)
            return
        form: Form = "plist" if await self._look.system() == "Darwin" else "text"
        for number, file in enumerate(found.files):
            await self._file(f"definition.{number}", file.asked, form=form)
        try:
            for number, script in enumerate(await scripts(self._look)):
                await self._file(f"script.{number}", script.file.asked)
        except Unreadable as error:
            self._missing("scripts", error.reason)
        names = [each.value.lstrip("-") for each in found.unit.all("Service", "EnvironmentFile")]
        for number, path in enumerate(path for path in names if path.startswith("/")):
            await self._file(f"environment.{number}", path, form="environment")
        name = self._look.service.name
        await self._file("receipt", f"{self._state}/receipt.json", form="json", optional=True)
        await self._file("declaration", f"/etc/ops-agent/services/{name}.toml", optional=True)

    async def _logs(self) -> None:
        question, lines = self._manager.journal(), self._wanted.journal_lines
        if question is not None:
            await self._ask("journal", "journal.txt", question, self._look.service.unit, number=lines)
        for number, path in enumerate(await self._log_paths()):
            await self._file(f"log.{number}", path, optional=True, tail=True)

    async def _log_paths(self) -> list[str]:
        found = list(self._look.declared.logs.paths) if self._look.declared else []
        try:
            unit = (await as_it_stands(self._look)).unit
            for key in ("StandardOutput", "StandardError"):
                for each in unit.all("Service", key):
                    how, _, path = each.value.partition(":")
                    if how in ("file", "append", "truncate"):
                        found.append(path)
            for setting in unit.commands():
                found += redirections(" ".join(split_exec(setting.value)[1]))
            for script in await scripts(self._look):
                found += redirections(script.file.text)
        except Unreadable as error:
            self._missing("log paths", error.reason)
        kept = [path for path in dict.fromkeys(found) if path.startswith("/") and not path.startswith("/dev/")]
        return [path for path in kept if path.isprintable() and not set("$*%`") & set(path)][:40]

    async def _podman(self) -> None:
        link = link_of(self._look)
        said = await self._ask("podman.version", "podman-version.json", "podman.version", form="json", connection=link)
        if said is None or said.rc != 0:
            return
        listed = "podman.containers"
        every = await self._ask(listed, "podman-ps.json", listed, form="json", connection=link)
        names = await self._names()
        if every is not None and every.rc == 0:
            ours = _ours(every, names, self._look.service.unit, self._look.service.name)
            self.found.containers = [each for each in ours if CONTAINER.match(each)][:50]
            self.found.incomplete += [f"container {each[:60]!r}: no name" for each in ours if not CONTAINER.match(each)]
        lines = min(self._wanted.journal_lines, 2000)
        for name in self.found.containers[:20]:
            file = f"container-{name}"
            await self._ask(file, f"{file}.json", "podman.container", name, form="json", connection=link)
            await self._ask(f"{file}.log", f"{file}.log", "podman.logs", name, number=lines, connection=link)

    async def _names(self) -> set[str]:
        """Return the names that the declaration and the command lines give to the service's containers."""
        declared = self._look.declared
        names = {declared.container_name or declared.name} if declared and declared.runtime == "podman" else set()
        try:
            for each in await starts(self._look):
                words = list(each.run.words)
                for at, word in enumerate(words):
                    if word.startswith("--name="):
                        names.add(word.removeprefix("--name="))
                    elif word == "--name" and at + 1 < len(words):
                        names.add(words[at + 1])
        except Unreadable as error:
            self._missing("container names", error.reason)
        return names

    async def _images(self) -> None:
        declared = self._look.declared
        names = [declared.image] if declared and declared.image else []
        try:
            names += [each.run.image for each in await starts(self._look) if each.run.image]
        except Unreadable as error:
            self._missing("image names", error.reason)
        for number, name in enumerate(dict.fromkeys(names)):
            id, link = f"image.{number}", link_of(self._look)
            await self._ask(id, f"image-{number}.json", "podman.image", name, form="json", connection=link)

    async def _credentials(self) -> None:
        try:
            paths = await ambient_files(self._look)
        except Unreadable as error:
            self._missing("credential files", error.reason)
            return
        if self._look.declared and self._look.declared.auth.authfile:
            paths.append(self._look.declared.auth.authfile)
        for number, path in enumerate(dict.fromkeys(paths)):
            await self._file(f"auth.{number}", path, form="json", optional=True)

    async def _ask(
        self, id: str, file: str, question: str, subject: str = "", *, form: Form = "text", number: int | None = None,
        connection: str | None = None,
    ) -> Said | None:  # fmt: skip
        started, begun = now(), time.monotonic()
        try:
            said = await self._look.probe.ask(
                question, subject, number=number, user=self._look.user, connection=connection
            )
        except Unreadable as error:
            self._missing(id, error.reason)
            return None
        text = said.out + (f"\n[stderr]\n{said.err}" if said.err.strip() and form == "text" else "")
        if form == "json" and said.rc != 0:
            form, file, text = "text", f"{file}.txt", said.out + said.err
        self._keep(Source(
            id=id, file=file, form=form, argv=said.cmd.split(), data=text.encode()[-FILE_BYTES:], rc=said.rc,
            started_at=started, duration_ms=round((time.monotonic() - begun) * 1000),
        ))  # fmt: skip
        return said

    async def _file(
        self, id: str, path: str, *, form: Form = "text", optional: bool = False, tail: bool = False
    ) -> None:
        started, begun = now(), time.monotonic()
        try:
            stat = await self._look.probe.stat(path)
            if not stat.exists:
                if not optional:
                    self._missing(id, f"{path} isn't there")
                return
            data = await self._bytes(path, stat.size, tail)
        except Unreadable as error:
            self._missing(id, error.reason)
            return
        end = ".json" if form == "plist" else ""
        self._keep(Source(
            id=id, file=f"{id}-{_safe(path.rpartition('/')[2])}{end}", form=form, argv=["read", path], data=data,
            started_at=started, duration_ms=round((time.monotonic() - begun) * 1000), origin=path, mode=stat.mode,
            owner=f"{stat.owner}:{stat.group}",
        ))  # fmt: skip

    async def _bytes(self, path: str, size: int, tail: bool) -> bytes:
        if not tail:
            return (await self._look.probe.read(path, max_bytes=FILE_BYTES)).data
        # It grows while it is read: half of the limit leaves room for what comes meanwhile.
        step = ReadFile(path, offset=max(0, size - FILE_BYTES // 2), max_bytes=FILE_BYTES)
        blocks = Blocks()
        try:
            output = await self._look.probe.executor.run(step, blocks)
        except ENDING:
            raise
        except OpsError as error:
            raise Unreadable(f"can't read the end of {path}: {error.message}") from error
        if not await self._look.same_place(path, output.value["path"]):
            # Who may write beside a log can point its name at any file, and this login may read more than they may.
            raise Unreadable(f"{path} is a link, or stands behind one: not captured")
        return b"".join(blocks.kept)

    def _keep(self, source: Source) -> None:
        held = sum(len(each.data) for each in self.found.sources)
        if len(self.found.sources) < MOST and held + len(source.data) <= TOTAL_BYTES:
            self.found.sources.append(source)
        else:
            self._missing(source.id, "the bundle is full")

    def _missing(self, id: str, reason: str) -> None:
        self.found.incomplete.append(mask(f"{id}: {reason}"))


class Blocks:
    """A sink that keeps stdout."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def write(self, stream: str, data: bytes) -> None:
        if stream == "stdout":
            self.kept.append(data)


def _ours(said: Said, names: set[str], unit: str, service: str) -> list[str]:
    """Return the containers that are the service's: by name, or by a label of ours or of podman's own units."""
    try:
        rows = said.json()
    except Unreadable:
        return []
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        labels = row.get("Labels") if isinstance(row.get("Labels"), dict) else {}
        own = {str(each) for each in row.get("Names") or []}
        theirs = (labels or {}).get("PODMAN_SYSTEMD_UNIT") == unit or (labels or {}).get("ops-agent.service") == service
        if own & names or theirs:
            found += sorted(own)
    return found


def _safe(name: str) -> str:
    return "".join(each if each.isalnum() or each in "._-" else "_" for each in name)[:80] or "file"


class Redacted(msgspec.Struct, kw_only=True):
    """A source as the bundle holds it."""

    source: Source
    data: bytes
    counts: Counter[str]


def redacted(sources: list[Source]) -> list[Redacted]:
    """Return the sources without secrets; each has taught what to take out of all."""
    redactor = Redactor()
    documents: dict[str, Apart] = {}
    for each in sources:
        try:
            apart = _taken_apart(each)
            if apart is None:
                redactor.learn(_text(each))
                continue
            redactor.learn_apart(apart)
        except (ValueError, RecursionError):
            continue
        documents[each.id] = apart
    return [_redact(each, redactor, documents.get(each.id)) for each in sources]


def _text(source: Source) -> str:
    return source.data.decode("utf-8", "replace")


def _taken_apart(source: Source) -> Apart | None:
    """Return a document's structure, None for a text without one; raises ValueError where there ought to be one."""
    match source.form:
        case "json":
            return Apart(json.loads(_text(source)))
        case "plist":
            return plist_apart(source.data)
        case "launchctl":
            return page_apart(_text(source))
        case _:
            return None


def _redact(source: Source, redactor: Redactor, apart: Apart | None) -> Redacted:
    if source.form in ("json", "plist"):
        if apart is None:
            # What can't be taken apart can't be redacted by structure either: it stays on the host.
            kind = "JSON" if source.form == "json" else "property list"
            text, counts = f"withheld: it is no {kind}\n", Counter({"withheld": 1})
            return Redacted(source=source, data=text.encode(), counts=counts)
        try:
            value, counts = redactor.json(apart.value)
        except RecursionError:
            return Redacted(source=source, data=b"withheld: nested too deeply\n", counts=Counter({"withheld": 1}))
        counts = +(counts + Counter({"structure": apart.masked}))
        return Redacted(source=source, data=(json.dumps(value, indent=1) + "\n").encode(), counts=counts)
    text = _text(source) if apart is None else str(apart.value)
    text, counts = redactor.environment(text) if source.form == "environment" else redactor.text(text)
    counts = +(counts + Counter({"structure": apart.masked if apart else 0}))
    return Redacted(source=source, data=text.encode(), counts=counts)
