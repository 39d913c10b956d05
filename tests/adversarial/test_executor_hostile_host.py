"""A host that attacks its caller: whatever it sends ends in a typed error, and in bounded memory."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Exec, Pull, Push, ReadFile, Stat, WriteFile
from opsexec.errors import CapabilityDenied, HostUnreachable, OpsError, ProtocolError, StepFailed
from opsexec.hosts import ssh
from opsexec.runbook.masking import Masker
from opsexec.steps import Facts, Link, MakeDir, MoveFile, Observe, RemoveFile, ServiceStatus, SetMode
from tests.integration.cli_runs import Cli, login
from tests.integration.conftest import require_root
from tests.parts.hostile_host import HostileHost, hostile_host
from tests.parts.sshd import Sshd
from tests.parts.targets import Target, over_ssh

pytestmark = pytest.mark.anyio
ID = Exec(["/usr/bin/id"])
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def villain() -> Iterator[HostileHost]:
    require_root()
    with hostile_host() as host:
        yield host


@pytest.fixture
def hostile(sshd: Sshd, villain: HostileHost, audit) -> Target:
    return over_ssh("hostile", sshd.endpoint(user=villain.user), audit)


def peak() -> int:
    """The largest this process has been, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def error_of(target: Target, step) -> OpsError:
    async with asyncio.timeout(20), target.connect() as ex:
        with pytest.raises(OpsError) as caught:
            await ex.run(step)
    return caught.value


NO_FRAMES = {
    "an answer of a gigabyte": (Stat(path="/a"), "say(struct.pack('>BII', ANSWER, ref, 1 << 30)); say(bytes(1 << 30))"),
    "a sentence of a gigabyte": (ID, "say(struct.pack('>BII', FAILED, ref, 1 << 30)); say(bytes(1 << 30))"),
    "an exit status of one byte": (ID, "frame(EXIT, ref, b'x')"),
    "an exit status no process can have": (ID, "frame(EXIT, ref, struct.pack('>i', 1 << 30))"),
    "an answer that is no message": (Stat(path="/a"), "frame(ANSWER, ref, b'xxxxxxxx')"),
    "an answer of a million empty items": (Stat(path="/a"), "frame(ANSWER, ref, struct.pack('>I', 1 << 31))"),
    "a failure without a code": (ID, "frame(FAILED, ref, message())"),
    "a greeting without a protocol": (ID, "frame(HELLO, ref, message())"),
    "a frame of no known kind": (ID, "frame(99, ref, b'x')"),
}


@pytest.mark.parametrize("attack", NO_FRAMES)
async def test_what_is_no_frame_ends_the_session_with_a_protocol_error(hostile, villain, attack):
    step, lines = NO_FRAMES[attack]
    villain.does(f"greet()\nkind, ref, payload = asked(SPAWN, CALL)\n{lines}\ntime.sleep(60)\n")
    before = peak()
    error = await error_of(hostile, step)
    assert isinstance(error, ProtocolError), error
    assert peak() - before < 64 * MEGABYTE


async def test_output_that_was_not_granted_is_not_kept(hostile, villain):
    villain.does("greet()\nkind, ref, payload = asked(SPAWN)\nwhile True: frame(OUTPUT, ref, bytes(1 << 20))\n")
    before = peak()

    class Stuck:
        async def write(self, stream, data):
            await asyncio.Event().wait()

    async with asyncio.timeout(20), hostile.connect() as ex:
        with pytest.raises(ProtocolError):
            await ex.run(ID, Stuck())
    assert peak() - before < 64 * MEGABYTE


async def test_what_comes_after_the_limit_goes_nowhere(hostile, villain):
    """It neither ends the program nor stops talking: a sink that writes a file would fill the disk."""
    villain.does("greet()\nkind, ref, payload = asked(SPAWN)\nwhile True: frame(OUTPUT, ref, bytes(1 << 16))\n")
    taken = 0

    class Counting:
        async def write(self, stream, data):
            nonlocal taken
            taken += len(data)

    async with asyncio.timeout(20), hostile.connect(max_output_bytes=1000) as ex:
        with pytest.raises(OpsError):
            await ex.run(ID, Counting())
    assert taken < MEGABYTE


async def test_input_that_the_host_says_it_took_but_never_read_is_not_piled_up_here(hostile, villain):
    villain.does(
        "greet()\nkind, ref, payload = asked(SPAWN)\n"
        "for _ in range(4000): frame(TAKEN, ref, struct.pack('>I', 1 << 31)); time.sleep(0.001)\n"
        "frame(EXIT, ref, struct.pack('>i', 0))\ntime.sleep(60)\n"
    )
    handed_over = 0

    async def endless():
        nonlocal handed_over
        while True:
            handed_over += MEGABYTE
            yield bytes(MEGABYTE)

    async with asyncio.timeout(30), hostile.connect() as ex:
        await ex.run(ID, stdin=endless())
    assert handed_over < 64 * MEGABYTE


async def test_noise_without_end_is_no_session_and_is_not_kept(hostile, villain, monkeypatch):
    monkeypatch.setattr(ssh, "OPEN_S", 2.0)
    villain.does("while True: say(b'x' * 65536)\n")
    before = peak()
    assert isinstance(await error_of(hostile, ID), HostUnreachable)
    assert peak() - before < 64 * MEGABYTE


JSON_STEPS = [
    Stat(path="/a"),
    ReadFile(path="/a"),
    WriteFile(path="/a", content="x"),
    RemoveFile(path="/a"),
    MoveFile("/a", "/b"),
    MakeDir(path="/a"),
    Link(path="/a", target="b"),
    SetMode(path="/a", mode="0644"),
    Facts(),
    Observe(names=("load",), count=1),
    Exec(["/usr/bin/id"], creates="/a"),
]
BAD_JSON = {
    "no JSON": b"{",
    "no object": b"[]",
    "an empty object": b"{}",
    "nested without end": b'{"a":' + b"[" * 100_000,
    "not a number": b'{"exists": NaN, "path": 1, "made": [], "changes": {}}',
    "a number without end": b'{"exists": 1' + b"0" * 10_000 + b"}",
    "lists for texts": b'{"exists": [], "path": [], "made": 7, "changes": 7, "kind": [], "target": 7, "content": "x"}',
    "half a character": (
        b'{"exists": true, "path": "\\ud800", "made": ["\\ud800"], "changes": {"\\ud800": ["\\ud800", ""]},'
        b' "content": true, "old_known": true, "existed": true, "old_size": 3, "kind": "\\ud800",'
        b' "target": ["\\ud800", "x"]}'
    ),
}


@pytest.mark.parametrize("answer", [b'{"a":' + b"[" * 800 + b"]" * 800 + b"}", b'{"a":' * 800 + b"1" + b"}" * 800])
async def test_facts_nested_deeper_than_can_be_masked_are_an_error_of_that_host(hostile, villain, answer):
    """Masking secrets in such a value would exhaust the stack."""
    villain.does(
        f"greet()\nanswer = {answer!r}\n"
        "while True:\n    kind, ref, payload = asked(CALL)\n    frame(ANSWER, ref, message(answer))\n"
    )
    async with asyncio.timeout(30), hostile.connect() as ex:
        with pytest.raises(ProtocolError, match="nested over 64 deep"):
            Masker(["a secret"]).data((await ex.run(Facts())).value)


@pytest.mark.parametrize("answer", ["b'[],' * 2_500_000 + b'[]'", "b'1.5,' * 1_500_000 + b'1.5'"])
async def test_facts_of_millions_of_values_are_an_error_of_that_host(hostile, villain, answer):
    """They take twenty times the memory of the text that they come as, and a run keeps them for every host."""
    villain.does(
        f"greet()\nanswer = b'{{\"a\": [' + {answer} + b']}}'\nkind, ref, payload = asked(CALL)\n"
        "frame(ANSWER, ref, message(answer))\ntime.sleep(60)\n"
    )
    async with asyncio.timeout(30), hostile.connect() as ex:
        with pytest.raises(ProtocolError, match="over 500000 values"):
            await ex.run(Facts())


@pytest.mark.parametrize("answer", BAD_JSON)
async def test_an_answer_of_the_wrong_shape_is_an_error_of_that_host_alone(hostile, villain, answer):
    """An error that isn't ours would end a whole run, on every host."""
    villain.does(
        f"greet()\nanswer = {BAD_JSON[answer]!r}\n"
        "while True:\n    kind, ref, payload = asked(CALL, SPAWN)\n"
        "    if kind == SPAWN: frame(EXIT, ref, struct.pack('>i', 0)); continue\n"
        "    (size,) = struct.unpack('>I', payload[4:8])\n    name = payload[8:8 + size]\n"
        "    items = [answer] if name in (b'stat', b'facts', b'observe') else [b'1', answer]\n"
        "    if name == b'read_file': items = [b'', answer]\n"
        "    if name == b'write_file': items = [b'1', b'', answer]\n"
        "    frame(ANSWER, ref, message(*items))\n"
    )
    async with asyncio.timeout(30), hostile.connect() as ex:
        for step in JSON_STEPS:
            try:
                output = await ex.run(step, diff=True)
            except ProtocolError:
                continue
            output.diff and output.diff.encode("utf-8", "backslashreplace")


async def test_a_denial_that_the_host_makes_up_is_a_denial_and_no_more(hostile, villain):
    villain.does(
        "greet()\nkind, ref, payload = asked(SPAWN)\n"
        "frame(FAILED, ref, message(b'denied', b'\\x1b[2Jno', b'exec:/x', b'fs.read:/**'))\ntime.sleep(60)\n"
    )
    error = await error_of(hostile, ID)
    assert isinstance(error, CapabilityDenied)
    assert error.layer == "host"


async def test_a_units_odd_numbers_are_no_numbers(hostile, villain):
    villain.does(
        "greet()\nkind, ref, payload = asked(SPAWN)\n"
        "frame(OUTPUT, ref, 'LoadState=loaded\\nMainPID=\\u00b2\\nNRestarts=' .encode() + b'9' * 5000 + b'\\n')\n"
        "frame(EXIT, ref, struct.pack('>i', 0))\ntime.sleep(60)\n"
    )
    async with asyncio.timeout(20), hostile.connect() as ex:
        output = await ex.run(ServiceStatus("web"))
    assert output.value["main_pid"] is None
    assert output.value["restarts"] is None


async def test_a_failure_without_known_code_shows_what_the_host_said(hostile, villain):
    attack = "greet()\nkind, ref, payload = asked(SPAWN)\nframe(FAILED, ref, message(b'os', b'odd'))\ntime.sleep(60)\n"
    villain.does(attack)
    assert isinstance(await error_of(hostile, ID), StepFailed)


@pytest.mark.parametrize("code", ["os", "unsuitable", "denied", "not_found", "unheard of"])
async def test_an_error_of_a_megabyte_is_cut(hostile, villain, code):
    """Told for each of many hosts it would push everything else off the screen, and fill the journal."""
    villain.does(
        "greet()\nkind, ref, payload = asked(SPAWN)\nlong = b'/' + b'x' * 300_000\n"
        f"frame(FAILED, ref, message({code.encode()!r}, long, long, long))\ntime.sleep(60)\n"
    )
    error = await error_of(hostile, ID)
    assert len(f"{error} {error.hint}") < 50_000


@pytest.mark.parametrize("step", [Pull("/srv/a", "./a"), Push("/etc/hostname", "/srv/a")], ids=["pull", "push"])
@pytest.mark.parametrize("answer", ["message()", "message(b'no')", "message(b'no', b'take_tar', b'take tar')"])
async def test_no_answer_to_a_copy_is_more_than_an_error_of_that_host(hostile, villain, answer, step):
    """The host says nothing at all, or asks for a tar stream instead of the tar stream."""
    villain.does(f"say(nonce)\nm = {answer}\nsay(struct.pack('>I', len(m)) + m)\ntime.sleep(60)\n")
    assert isinstance(await error_of(hostile, step), OpsError)


SAYS = """greet()
while True:
    kind, ref, payload = asked(CALL)
    frame(ANSWER, ref, message({answer!r}))
"""


def test_the_name_of_a_fact_does_not_drive_the_terminal(sshd, villain, tmp_path: Path):
    """OSC 52 writes the operator's clipboard; a newline makes up the line of another host."""
    evil = "a\x1b]52;c;QUFB\x07\x9b2J\u202e\r\nweb2 | os.id  debian"
    villain.does(SAYS.format(answer=json.dumps({"os": {evil: 1}, evil: [{evil: {}}]}).encode()))
    end = sshd.endpoint(user=villain.user)
    done = Cli(tmp_path).run("facts", end.url, *login(end))
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines), lines


def test_a_sample_is_of_the_host_it_came_from_whatever_it_says(sshd, villain, tmp_path: Path):
    villain.does(SAYS.format(answer=b'{"host": "web2", "ts": 1, "load": null}'))
    end = sshd.endpoint(user=villain.user)
    done = Cli(tmp_path).run("observe", end.url, *login(end), "load", "--count", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["host"] == end.url
