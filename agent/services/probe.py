"""`Probe`: how checks read a host. Only typed steps on an executor, each bounded, each asked once.

What can't be read raises `Unreadable`, which a check lets pass: its verdict is unknown then, never pass.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agent.services.finding import EXCERPT, Evidence
from opsexec.errors import (
    AuditUnavailable,
    CapabilityDenied,
    HostUnreachable,
    HostUnsuitable,
    OpsError,
    PrivilegeDenied,
    ProgramNotFound,
)
from opsexec.executor import RunOutput, Stream
from opsexec.handlers.doctor import Pulse, Surveyed
from opsexec.handlers.far_answers import Entry
from opsexec.steps import Exec, Facts, Inquire, Observe, PingSocket, ReadFile, Stat, Step, Survey
from opsexec.steps.registry import encode_step

if TYPE_CHECKING:
    from opsexec.executor import Executor

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 8.0
FILE_BYTES = 1 << 20
"""The largest file a check reads, in bytes: units and scripts are a few KiB."""

FATAL = (HostUnreachable, AuditUnavailable, PrivilegeDenied)
"""After these no question can be answered: they end the whole run with exit status 3."""


class Unreadable(Exception):
    """Something could not be read. `root`: the check that says so best, when it is another one."""

    def __init__(self, reason: str, *evidence: Evidence, hint: str | None = None, root: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence
        self.hint = hint
        self.root = root


class Missing(Unreadable):
    """The host has no such program."""


class Said(msgspec.Struct, frozen=True):
    """What a program answered. `cmd`: its words; `out`, `err`: bytes that aren't UTF-8 are shown as U+FFFD."""

    cmd: str
    rc: int
    out: str
    err: str

    @property
    def evidence(self) -> Evidence:
        """It, as evidence; an excerpt keeps its end, where programs say what went wrong."""
        return Evidence(cmd=self.cmd, rc=self.rc, excerpt=((self.err or self.out).strip())[-EXCERPT:])

    def require_ok(self) -> Said:
        """Return it; raises Unreadable unless the status is 0."""
        if self.rc == 0:
            return self
        last = (self.err or self.out).strip().rpartition("\n")[2][:200]
        raise Unreadable(f"`{self.cmd}` ended with {self.rc}: {last}", self.evidence)

    def json(self) -> Any:
        """Return the JSON it said; raises Unreadable for anything else."""
        self.require_ok()
        try:
            return json.loads(self.out)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"`{self.cmd}` said no JSON", self.evidence) from error


class FileText(msgspec.Struct, frozen=True):
    """A file's content. `path`: without links."""

    asked: str
    path: str
    data: bytes
    mode: str

    @property
    def text(self) -> str:
        """As text; bytes that aren't UTF-8 are shown as U+FFFD."""
        return self.data.decode("utf-8", "replace")


class _Bounded:
    """A sink that keeps so many bytes and remembers that there were more."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.over = False
        self.blocks: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}

    async def write(self, stream: Stream, data: bytes) -> None:
        kept = data[: self.left]
        self.left -= len(kept)
        self.over = self.over or len(kept) < len(data)
        self.blocks[stream].append(kept)
        if self.over:
            raise ValueError("more output than a check reads")

    def text(self, stream: Stream) -> str:
        return b"".join(self.blocks[stream]).decode("utf-8", "replace")


class Probe:
    """Reads one host, as `run_as` where it isn't the login. A question is put once, however many checks ask it."""

    def __init__(self, executor: Executor, *, run_as: str | None = None, at_once: int = 6) -> None:
        self.executor = executor
        self._run_as = run_as
        self._answers: dict[Any, asyncio.Future[Any]] = {}
        self._places = asyncio.Semaphore(at_once)

    @property
    def host(self) -> str:
        """The host's name."""
        return self.executor.host

    async def memo(self, key: Any, make: Callable[[], Awaitable[T]]) -> T:
        """Return what `make` answered the first time, or raise the Unreadable it raised."""
        found = self._answers.get(key)
        if found is not None:
            answer: T = await asyncio.shield(found)
            return answer
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[key] = waiting
        try:
            made = await make()
        except Unreadable as error:
            waiting.set_exception(error)
            waiting.exception()  # read here, so that nobody else has to
            raise
        except BaseException:  # a cancellation as well
            # Who asked has given up, or the run ends; who waits for the same answer must not be cancelled with it.
            del self._answers[key]
            waiting.set_exception(Unreadable("the check that asked for it gave up"))
            waiting.exception()
            raise
        waiting.set_result(made)
        return made

    async def ask(
        self,
        question: str,
        subject: str = "",
        *,
        number: int | None = None,
        user: bool = False,
        connection: str | None = None,
        again: int = 0,
    ) -> Said:
        """Put a question of `opsexec.steps.questions`, once for each `again`; raises Missing for the program itself."""
        step = self._step(Inquire, ask=question, subject=subject, number=number, user=user, connection=connection)
        key = (encode_step(step), again)
        return await self.memo(key, lambda: self._said(step, step.question.max_bytes, step.argv()))

    async def whois(self, socket: str, address: str) -> Said:
        """Ask tailscaled, by the path of its socket, whose an address is."""
        step = self._step(Inquire, ask="tailnet.whois", subject=socket, address=address)
        return await self.memo(encode_step(step), lambda: self._said(step, step.question.max_bytes, step.argv()))

    async def run(self, argv: list[str], *, timeout_s: float, env: dict[str, str] | None = None) -> Said:
        """Run a program that a declaration names; it takes an exec grant of its own."""
        step = self._step(Exec, argv=argv, timeout_s=timeout_s, env=env or {})
        return await self.memo(encode_step(step), lambda: self._said(step, FILE_BYTES, tuple(argv)))

    async def read(self, path: str, *, max_bytes: int = FILE_BYTES) -> FileText:
        """Return a file's content; raises Unreadable for a missing, larger or forbidden one."""
        step = self._step(ReadFile, path=path, max_bytes=max_bytes)

        async def make() -> FileText:
            output, sink = await self._run(step, max_bytes, f"read {path}", path)
            return FileText(path, output.value["path"], b"".join(sink.blocks["stdout"]), output.value["mode"])

        return await self.memo(encode_step(step), make)

    async def stat(self, path: str) -> Entry:
        """Return a path's metadata, `exists` false where nothing is; a final link is not followed."""
        step = self._step(Stat, path=path)
        return await self.memo(encode_step(step), lambda: self._value(step, Entry, path))

    async def survey(self, path: str, *, depth: int = 1, digest: bool = False, max_entries: int = 4000) -> Surveyed:
        """Return what a directory holds."""
        step = self._step(Survey, path=path, depth=depth, digest=digest, max_entries=max_entries)
        return await self.memo(encode_step(step), lambda: self._value(step, Surveyed, path))

    async def ping(self, path: str) -> Pulse:
        """Return whether a container service answers on a unix socket."""
        step = self._step(PingSocket, path=path)
        return await self.memo(encode_step(step), lambda: self._value(step, Pulse, path))

    async def facts(self, name: str) -> Any:
        """Return one fact about the host; raises Unreadable when the host can't tell it."""
        step = self._step(Facts, names=(name,))

        async def make() -> Any:
            output, _ = await self._run(step, FILE_BYTES, f"read the {name} facts", None)
            found = output.value.get(name)
            if found is None:
                raise Unreadable(f"the host can't tell its {name} facts")
            return found

        return await self.memo(encode_step(step), make)

    async def moment(self) -> float:
        """Return the host's clock, in seconds since 1970."""
        _, sink = await self._run(self._step(Observe, names=("load",), count=1), FILE_BYTES, "read its clock", None)
        try:
            return float(json.loads(sink.text("stdout"))["ts"])
        except (ValueError, LookupError, TypeError) as error:
            raise Unreadable("the host doesn't tell the time") from error

    def _step(self, kind: Callable[..., T], **fields: Any) -> T:
        """Make a step; what it refuses (a name with a newline, say) can't be asked for, so it is unreadable."""
        try:
            return kind(**fields, run_as=self._run_as)
        except OpsError as error:
            raise Unreadable(error.message, hint=error.hint) from error

    async def _value(self, step: Step, shape: type[T], path: str) -> T:
        output, _ = await self._run(step, FILE_BYTES, f"look at {path}", path)
        try:
            return msgspec.convert(output.value, shape)
        except msgspec.ValidationError as error:
            raise Unreadable(f"the host's answer about {path} makes no sense") from error

    async def _said(self, step: Step, max_bytes: int, argv: tuple[str, ...]) -> Said:
        cmd = shlex.join(argv)[:500]
        output, sink = await self._run(step, max_bytes, f"ask `{argv[0]}`", None)
        if output.exit_code is None:
            said = Evidence(cmd=cmd, excerpt=sink.text("stderr")[-EXCERPT:])
            raise Unreadable(f"`{cmd}` was ended by {output.signal}", said)
        return Said(cmd, output.exit_code, sink.text("stdout"), sink.text("stderr"))

    async def _run(self, step: Step, max_bytes: int, doing: str, path: str | None) -> tuple[RunOutput, _Bounded]:
        if step.timeout_s is None and not isinstance(step, Inquire):
            step = msgspec.structs.replace(step, timeout_s=DEFAULT_TIMEOUT_S)
        sink = _Bounded(max_bytes)
        evidence = (Evidence(path=path),) if path else ()
        try:
            async with self._places:
                return await self.executor.run_streaming(step, sink), sink
        except FATAL:
            raise
        except CapabilityDenied as error:
            raise Unreadable(f"may not {doing}: {error.message}", *evidence, hint=error.hint) from error
        except ProgramNotFound as error:
            raise Missing(error.message, hint=error.hint) from error
        except HostUnsuitable:
            raise
        except (OpsError, ValueError) as error:
            if not isinstance(error, OpsError) and not sink.over:
                raise
            reason = f"can't {doing}: it said over {max_bytes} bytes" if sink.over else f"can't {doing}: {error}"
            raise Unreadable(reason, *evidence, hint=getattr(error, "hint", None)) from error
