"""Requests that are none: a hundred thousand for the decoders, thousands for a real agent, and none of them ends it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from agent.body import JSON_TYPE, Body
from opsexec import CapabilitySet, Exec, ReadFile, Secret, Shell, WriteFile
from opsexec.audit import verify
from opsexec.errors import OpsError
from opsexec.steps.registry import redact
from opsexec.wire import STDIN, STDIN_END, decode_result, encode_request, frame, pack_grants
from tests.parts.agent_bytes import Usage, answer, get, post
from tests.parts.limits_table import record
from tests.parts.mutation import Mutator
from tests.parts.ops_agent import OpsAgent
from tests.parts.unix_user import current_user

pytestmark = pytest.mark.timeout(300)
INPUTS = 200_000
REQUESTS = 10_000
AT_ONCE = 24
PATIENCE_S = 0.1
SLOW_S = 2.0
"""One input that takes longer than this counts as a hang."""

GRANTED = CapabilitySet.of("exec:/bin/true", "fs.*:/nonexistent/**", run_as=["nobody"], max_timeout_s=1)


def seed() -> int:
    """The seed of this run: OPSEXEC_FUZZ_SEED has one again."""
    chosen = int(os.environ.get("OPSEXEC_FUZZ_SEED") or secrets.randbelow(1 << 32))
    print(f"OPSEXEC_FUZZ_SEED={chosen}")
    return chosen


def corpus() -> list[bytes]:
    """Requests that are right, of every kind."""
    run = "0123456789abcdef"
    layers = pack_grants(GRANTED)
    requests = [
        encode_request(Exec(["/bin/true"]), run=run),
        encode_request(
            Exec(["/bin/true", "\udcff"], env={"A": "b"}, cwd="/", timeout_s=2.5), run=run, attenuation=layers
        ),
        encode_request(Shell("a.b", "true", stdin="x" * 50), run=run, detach=True),
        encode_request(
            WriteFile("/nonexistent/a", content=Secret("s3cret"), mode="0600"), run=run, check=True, diff=True
        ),
        encode_request(ReadFile("/nonexistent/b"), run=run),
    ]
    streamed = encode_request(Exec(["/bin/true"]), run=run, streams_stdin=True)
    requests.append(streamed + frame(STDIN, b"hello") + frame(STDIN, b"") + frame(STDIN_END))
    step = {"type": "exec", "argv": ["/bin/true"]}
    for more in ({}, {"run": run, "check": True}, {"attenuation": [{"capabilities": ["exec:**"]}]}):
        requests.append(msgspec.json.encode({"step": step, **more}))
    return requests


WORDS = [
    *(b"\x00", b"\xff" * 5, b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdd\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\x93" * 300, b"[" * 3000, b'{"step":' * 500, b"1e999", b'"\\ud800"', b"\x01\x00\x00\x00\x00", b"null", b"nan"),
    *(b"\x02\x00\x10\x00\x01", b"-1", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xcf" + b"\xff" * 8, b"step", b"type"),
    *(b"exec", b"tty", b"../../etc"),
]
HEADS = [
    *(b"\r\n", b"\n", b"\x00", b" ", b":", b"%00", b"//", b"GET", b"HTTP/1.0", b"HTTP/9.9", b"A" * 9000),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Ops-Protocol: 9.9\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: keep-alive\r\n"),
]


class FakeContent:
    """A body that is there whole, in two pieces."""

    def __init__(self, data: bytes) -> None:
        middle = len(data) // 2
        self._blocks = [each for each in (data[:middle], data[middle:]) if each]

    def read_nowait(self) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""

    async def readany(self) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""


class FakeRequest:
    """What of a request its body reader looks at."""

    def __init__(self, data: bytes, kind: str) -> None:
        self.content = FakeContent(data)
        self.content_type = kind


async def take(data: bytes, kind: str) -> None:
    """Do with a body all that happens before a step is admitted."""
    body = Body(FakeRequest(data, kind), 1 << 20, 5.0)  # type: ignore[arg-type]  # all it looks at is there
    wanted = await body.request()
    step = wanted.decoded_step()
    attenuation = wanted.ceiling()
    held = GRANTED if attenuation is None else GRANTED & attenuation
    for need in step.requires():
        held.admits(need)
    msgspec.json.encode(redact(step))
    if wanted.streams_stdin:
        async for _ in body.stdin():
            pass


def test_nothing_that_is_sent_breaks_a_decoder() -> None:
    chosen = seed()
    mutator = Mutator(chosen, corpus(), WORDS)
    refused = taken = 0
    slowest = 0.0

    async def all_of_them() -> None:
        nonlocal refused, taken, slowest
        for number in range(INPUTS):
            data = mutator.next()
            begun = time.perf_counter()
            try:
                await take(data, JSON_TYPE if data[:1] == b"{" else "application/vnd.opsexec.frames")
                taken += 1
            except OpsError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"seed {chosen}, input {number}, {data[:200]!r}: {error!r}") from error
            slowest = max(slowest, time.perf_counter() - begun)
            try:
                decode_result(data)
            except OpsError:
                pass

    asyncio.run(all_of_them())
    assert slowest < SLOW_S
    assert taken > 100  # else the damage is so large that only the first check was tried
    saw = f"0 crashes, 0 hangs; {refused:,} refused with a typed error, {taken:,} still requests; "
    record("frames-decoder", f"{INPUTS:,} damaged requests, frames and JSON", saw + f"slowest {slowest * 1000:.0f} ms")


@pytest.fixture
def narrow() -> Iterator[OpsAgent]:
    """An agent that lets this user do next to nothing: what is damaged may become another step."""
    grants = [{"principal": f"unix:{current_user()}", "capabilities": ["exec:/bin/true", "fs.read:/nonexistent/**"]}]
    with OpsAgent(grants, request_timeout_s=2, idle_timeout_s=2, max_request_bytes=1 << 20) as running:
        yield running


async def exchange(agent: OpsAgent, data: bytes) -> bytes:
    """Return what comes back to some bytes; an agent that waits for more is told that there is none."""
    reader, writer = await asyncio.open_unix_connection(str(agent.socket))
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            said = b""
            try:
                async with asyncio.timeout(PATIENCE_S):
                    said = await reader.read(65536)
            except TimeoutError:
                writer.write_eof()
            while block := await reader.read(65536):
                said += block
            return said
    except (BrokenPipeError, ConnectionResetError):
        return b""
    finally:
        writer.transport.abort()


def test_nothing_that_is_sent_ends_the_agent(narrow: OpsAgent) -> None:
    chosen = seed()
    bodies = Mutator(chosen, corpus(), WORDS)
    frames, lines = "Content-Type: application/vnd.opsexec.frames", "Content-Type: application/json"
    whole = [post(body, lines if body[:1] == b"{" else frames) for body in corpus()]
    whole += [post(body, frames, path=path) for body in corpus()[:3] for path in ("/v1/tty", "/v1/sync")]
    whole += [post(b'{"signal": "SIGTERM"}', lines, path="/v1/runs/0123456789abcdef/signal")]
    whole += [get("/v1/events?names=runs,load&interval=5&count=1"), get("/v1/schedules"), get("/v1/consent")]
    whole += [get("/v1/whoami"), get("/v1/runs"), get("/v1/runs/0123456789abcdef?offset=1"), get("/v1/nothing")]
    requests = Mutator(chosen + 1, whole, [*HEADS, *WORDS])
    answer(narrow.socket, get("/v1/whoami"))
    before, pid = Usage.of(narrow.pid), narrow.pid
    numbers = iter(range(REQUESTS))
    statuses: Counter[str] = Counter()
    slowest = 0.0

    async def ask_on() -> None:
        nonlocal slowest
        for number in numbers:
            body = bodies.next()
            data = post(body, lines if body[:1] == b"{" else frames) if number % 2 else requests.next()
            begun = time.perf_counter()
            try:
                said = await exchange(narrow, data)
            except TimeoutError as error:
                raise AssertionError(f"seed {chosen}, request {number}, no end: {data[:300]!r}") from error
            slowest = max(slowest, time.perf_counter() - begun)
            assert said == b"" or said.startswith(b"HTTP/"), f"seed {chosen}, request {number}: {said[:80]!r}"
            assert b" 500 " not in said[:20], f"seed {chosen}, request {number}: {data[:300]!r} {said[-300:]!r}"
            statuses[said[9:12].decode() or "closed"] += 1

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(ask_on())

    asyncio.run(all_of_them())
    assert narrow.pid == pid
    assert answer(narrow.socket, get("/v1/whoami")).startswith(b"HTTP/1.1 200")
    after = Usage.of(pid)
    assert "Traceback" not in narrow.said()
    assert after.fds <= before.fds + 5
    assert after.rss_kib < before.rss_kib + 20_000
    assert verify(narrow.state / "audit.jsonl").ok
    assert statuses["400"] > REQUESTS / 10
    counts = ", ".join(f"{number:,} x {status}" for status, number in sorted(statuses.items()))
    saw = f"0 crashes, 0 hangs, 0 times 500; {counts}; slowest {slowest:.2f} s; "
    saw += f"RSS {before.rss_kib // 1024} -> {after.rss_kib // 1024} MiB, descriptors {before.fds} -> {after.fds}"
    record("frames-socket", f"{REQUESTS:,} damaged requests, heads and bodies", saw)
