"""A real ops-agent: who asks, what they may do, what is recorded, and that nothing a client sends ends it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsexec import (
    AgentRpc,
    AuditLog,
    CapabilitySet,
    Exec,
    NullAudit,
    ReadFile,
    Secret,
    Shell,
    Tty,
    connect,
)
from opsexec.audit import verify
from opsexec.errors import (
    AuditUnavailable,
    CapabilityDenied,
    ConnectionLost,
    HostUnreachable,
    LimitExceeded,
    ProtocolError,
)
from opsexec.wire import PROTOCOL, STDIN, encode_request, frame
from tests.integration.conftest import require_root
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import alive
from tests.parts.sshd import Sshd
from tests.parts.unix_user import current_user
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
ME = f"unix:{current_user()}"
REPOSITORY = Path(__file__).parents[2]


def rpc(agent: OpsAgent, *capabilities: str, **more: Any) -> AgentRpc:
    held = CapabilitySet.of(*capabilities) if capabilities else CapabilitySet.everything()
    return AgentRpc(agent.url, capabilities=held, audit=NullAudit(), **more)


def grant(*capabilities: str, **more: Any) -> list[dict[str, Any]]:
    return [{"principal": ME, "capabilities": list(capabilities), **more}]


def http(agent: OpsAgent, head: str, body: bytes = b"", *, within_s: float = 10.0) -> bytes:
    """What the agent answers to raw bytes, until it closes or says the whole of a short answer."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(within_s)
        link.connect(str(agent.socket))
        link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        said = b""
        while block := link.recv(65536):
            said += block
    return said


def post(body: bytes, *headers: str, path: str = "/v1/steps") -> tuple[str, bytes]:
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\n".join(lines), body


JSON = ("Content-Type: application/json", "Accept: application/x-ndjson")


def json_lines(said: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.partition(b"\r\n\r\n")[2].splitlines() if line.startswith(b"{")]


# -- who asks -------------------------------------------------------------------------------------------------------


async def test_the_kernel_says_who_asks(ops_agent: OpsAgent) -> None:
    async with rpc(ops_agent) as ex:
        found = await ex.whoami()
    assert found["principal"] == ME
    assert found["listener"] == f"unix:{ops_agent.socket}"
    assert found["protocol"] == PROTOCOL


def as_user(user: str, agent: OpsAgent, *headers: str) -> bytes:
    """What another user is answered, with headers of its own."""
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(sys.argv[2].encode()); s.settimeout(10)\n"
        "said = b''\nwhile block := s.recv(65536): said += block\nsys.stdout.buffer.write(said)"
    )
    request = "\r\n".join(["GET /v1/whoami HTTP/1.1", "Host: a", "Connection: close", *headers, "", ""])
    argv = ["runuser", "-u", user, "--", "/usr/bin/python3", "-I", "-c", script, str(agent.socket), request]
    return subprocess.run(argv, capture_output=True, check=True, timeout=20).stdout


async def test_nothing_a_client_sends_changes_who_it_is(plain_user: str) -> None:
    claims = ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=root", "X-Real-IP: ::1", "Tailscale-User-Login: root"]
    claims += ["Authorization: Basic cm9vdDo=", "X-Forwarded-User: root", f"Cookie: principal={ME}", "From: root"]
    with OpsAgent(
        [*grant(*EVERYTHING), {"principal": f"unix:{plain_user}", "capabilities": ["facts:os"]}], mode="0666"
    ) as agent:
        said = as_user(plain_user, agent, "Accept: application/x-ndjson", *claims)
    (line,) = json_lines(said)
    assert line["result"]["value"]["principal"] == f"unix:{plain_user}"
    assert line["result"]["value"]["grants"][0]["capabilities"] == ["facts:os"]


async def test_who_has_no_grant_is_refused_before_anything_is_decoded(plain_user: str) -> None:
    with OpsAgent(grant(*EVERYTHING), mode="0666") as agent:
        said = as_user(plain_user, agent, "Accept: application/x-ndjson")
        refused = agent.records()[-1]
    assert said.startswith(b"HTTP/1.1 403")
    assert f"unix:{plain_user} has no grant" in json_lines(said)[0]["error"]["message"]
    assert (refused["decision"], refused["layer"], refused["principal"]) == ("deny", "agent", f"unix:{plain_user}")
    with OpsAgent([{"principal": "unix:daemon", "capabilities": EVERYTHING}]) as agent:
        for body in (b"", b"\x01\xff\xff\xff\xff", encode_request(Exec(["id"]), run=secrets.token_hex(8))):
            head, body = post(body, "Accept: application/x-ndjson")
            said = http(agent, head, body)
            assert said.startswith(b"HTTP/1.1 403"), said
            assert json_lines(said)[0]["error"]["code"] == "denied"
            assert agent.records()[-1]["step"] == {"type": "request", "request": "POST /v1/steps"}


async def test_users_of_other_namespaces_prove_nothing() -> None:
    require_root()
    with OpsAgent(grant(*EVERYTHING), mode="0666") as agent:
        assert as_user("nobody", agent).startswith(b"HTTP/1.1 403")
        assert agent.records()[-1]["principal"] is None


# -- what they may do -----------------------------------------------------------------------------------------------


async def test_the_agent_stops_what_the_caller_lets_through(tmp_path: Path) -> None:
    with OpsAgent(grant("exec:/bin/true", f"fs.read:{tmp_path}/**", run_as=["daemon"])) as agent:
        async with rpc(agent) as ex:
            await ex.run(Exec(["/bin/true"]))
            denied = [
                Exec(["/bin/touch", f"{tmp_path}/x"]),
                ReadFile("/etc/hostname"),
                Exec(["/bin/true"], run_as="bin"),
            ]
            for step in [*denied, Exec(["/bin/true"], env={"LD_PRELOAD": "/x"}), Shell("a", "true")]:
                with pytest.raises(CapabilityDenied) as error:
                    await ex.run(step)
                assert error.value.layer == "agent"
        lines = agent.records()
    assert [line["decision"] for line in lines if line["decision"]] == ["allow", *["deny"] * 5]
    assert all(line["layer"] == "agent" and line["principal"] == ME for line in lines)
    assert not (tmp_path / "x").exists()


async def test_the_caller_stops_what_the_agent_would_let_through(ops_agent: OpsAgent) -> None:
    before = len(ops_agent.records())
    async with rpc(ops_agent, "exec:/bin/true") as ex:
        with pytest.raises(CapabilityDenied) as error:
            await ex.run(Exec(["/bin/false"]))
        assert error.value.layer == "caller"
    assert len(ops_agent.records()) == before


async def test_the_agent_holds_a_caller_to_what_it_narrowed_itself_to(ops_agent: OpsAgent) -> None:
    narrow = rpc(ops_agent, "exec:/bin/true")
    narrow._capabilities = CapabilitySet.everything()  # a caller whose own check is broken
    async with narrow as ex:
        await ex.run(Exec(["/bin/true"]))
        with pytest.raises(CapabilityDenied) as error:
            await ex.run(Exec(["/bin/false"]))
    assert error.value.layer == "agent"


async def test_a_link_does_not_lead_out_of_a_grant(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    with OpsAgent(grant(f"fs.read:{tmp_path}/in/**")) as agent:
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied):
                await ex.run(ReadFile(f"{tmp_path}/in/link"))


async def test_limits_of_the_grant_hold_whatever_the_caller_asks() -> None:
    with OpsAgent(grant("exec:**", max_output_bytes=1000, max_timeout_s=5.0)) as agent:
        async with rpc(agent) as ex:
            with pytest.raises(LimitExceeded):
                await ex.run(Exec(["head", "-c", "5000", "/dev/zero"]))
            with pytest.raises(LimitExceeded, match="limit of 5 s"):
                await ex.run(Exec(["true"], timeout_s=60))


async def test_one_principal_runs_so_many_at_once_and_no_more() -> None:
    with OpsAgent(grant("exec:**"), max_runs_per_principal=2) as agent:
        async with rpc(agent) as ex:
            two = [asyncio.create_task(ex.run(Exec(["sleep", "300"]))) for _ in range(2)]
            await eventually(
                lambda: sum(r["decision"] == "allow" for r in agent.records()) == 2, within_s=10, what="two"
            )
            with pytest.raises(LimitExceeded, match="2 runs under way"):
                await ex.run(Exec(["true"]))
            for task in two:
                task.cancel()
            await asyncio.wait(two)
            await ex.run(Exec(["true"]))


async def test_a_bare_run_id_is_never_run_twice(ops_agent: OpsAgent, tmp_path: Path) -> None:
    request = encode_request(Shell("t.x", f"echo x >> {tmp_path}/count"), run=secrets.token_hex(8))
    answers = [http(ops_agent, *post(request, "Accept: application/x-ndjson")) for _ in range(2)]
    assert json_lines(answers[0])[-1]["result"]["exit_code"] == 0
    assert "not run again" in json_lines(answers[1])[-1]["error"]["message"]
    assert (tmp_path / "count").read_text() == "x\n"


async def test_a_caller_does_not_choose_the_mark_that_ends_processes(ops_agent: OpsAgent) -> None:
    """Else one could take another run's id, and have that one's processes ended with its own."""
    async with rpc(ops_agent) as ex:
        output = await ex.run(Exec(["printenv", "OPSEXEC_RUN"]))
        run = await ex.start(Exec(["printenv", "OPSEXEC_RUN"]))
        detached = await ex.attach(run)
    assert output.run not in output.text
    assert run not in detached.text
    assert len(output.text.strip().rpartition("/")[2]) == 32


async def test_detached_runs_take_places_too_and_can_still_be_followed() -> None:
    with OpsAgent(grant("exec:**"), max_runs_per_principal=2) as agent:
        async with rpc(agent) as ex:
            runs = [await ex.start(Exec(["sleep", "300"])) for _ in range(2)]
            with pytest.raises(LimitExceeded):
                await ex.run(Exec(["true"]))
            following = asyncio.create_task(ex.attach(runs[0]))
            for run in runs:
                await ex.signal(run)
            with pytest.raises(Exception, match="ended on request"):
                await following
            await ex.run(Exec(["true"]))


# -- what is recorded -----------------------------------------------------------------------------------------------


async def test_caller_and_agent_record_the_same_run(ops_agent: OpsAgent, audit: AuditLog) -> None:
    async with connect(ops_agent.url, capabilities=CapabilitySet.everything(), audit=audit) as ex:
        output = await ex.run(Exec(["printenv", "TOKEN"], env={"TOKEN": Secret("s3cr3t")}))
    caller = [json.loads(line) for line in audit.path.read_text().splitlines()]
    agent = [line for line in ops_agent.records() if line["run"] == output.run]
    for lines, layer in ((caller, "caller"), (agent, "agent")):
        assert [(line["decision"], line["layer"], line["run"]) for line in lines] == [
            ("allow", layer, output.run),
            (None, layer, output.run),
        ]
        assert lines[1]["outcome"]["digest"] == output.digest
        assert "s3cr3t" not in json.dumps(lines)
    assert verify(ops_agent.state / "audit.jsonl").ok


async def test_without_an_audit_nothing_runs(tmp_path: Path) -> None:
    with OpsAgent(grant("exec:**")) as agent:
        log = agent.state / "audit.jsonl"
        log.rename(log.with_suffix(".away"))
        async with rpc(agent) as ex:
            with pytest.raises(AuditUnavailable):
                await ex.run(Exec(["touch", str(tmp_path / "x")]))
        said = http(agent, *post(b"", "Accept: application/x-ndjson"))
    assert said.startswith(b"HTTP/1.1 503")
    assert not (tmp_path / "x").exists()


# -- ends -----------------------------------------------------------------------------------------------------------


async def started_sleeper(ex: AgentRpc, tmp_path: Path) -> tuple[asyncio.Task[Any], int]:
    step = Shell("t.sleep", f"setsid sleep 300 & echo $! > {tmp_path}/pid; wait")
    task = asyncio.create_task(ex.run(step))
    file = tmp_path / "pid"
    await eventually(lambda: file.exists() and file.read_text().endswith("\n"), within_s=10, what="it runs")
    return task, int(file.read_text())


async def test_stopping_the_agent_ends_what_it_runs_and_says_so(tmp_path: Path) -> None:
    with OpsAgent(grant("shell:*")) as agent:
        async with rpc(agent) as ex:
            task, pid = await started_sleeper(ex, tmp_path)
            assert await asyncio.to_thread(agent.end) == 0
            with pytest.raises(ConnectionLost, match="stopped"):
                await task
        assert not alive(pid)
        assert agent.records()[-1]["outcome"]["error"] == "CancelledError"
        assert not agent.socket.exists()


async def test_killing_the_agent_ends_what_it_runs(tmp_path: Path) -> None:
    with OpsAgent(grant("shell:*")) as agent:
        async with rpc(agent) as ex:
            task, pid = await started_sleeper(ex, tmp_path)
            agent.end(signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await task
            await eventually(lambda: not alive(pid), within_s=3, what="the tree ends")
            agent.start()
            await ex.run(Shell("t.x", "true"))


async def test_killing_the_agent_ends_also_what_only_a_mark_tells_from_others(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    step = Shell("t.orphan", f"setsid sh -c 'sleep 300 & echo $! > {file}'; sleep 300")
    with OpsAgent(grant("shell:*")) as agent:
        async with rpc(agent) as ex:
            task = asyncio.create_task(ex.run(step))
            await eventually(lambda: file.exists() and file.read_text().endswith("\n"), within_s=10, what="it runs")
            agent.end(signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await task
            pid = int(file.read_text())
            try:
                await eventually(lambda: not alive(pid), within_s=3, what="the tree ends")
            finally:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)


async def test_closing_the_connection_ends_the_tree(ops_agent: OpsAgent, tmp_path: Path) -> None:
    step = Shell("t.sleep", f"setsid sleep 300 & echo $! > {tmp_path}/pid; wait")
    head, body = post(encode_request(step, run=secrets.token_hex(8)))
    file = tmp_path / "pid"
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(ops_agent.socket))
        link.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await eventually(lambda: file.exists() and file.read_text().endswith("\n"), within_s=10, what="it runs")
    await eventually(lambda: not alive(int(file.read_text())), within_s=3, what="the tree ends")


async def test_a_running_step_can_be_seen_and_ended_from_elsewhere(ops_agent: OpsAgent, tmp_path: Path) -> None:
    async with rpc(ops_agent) as ex, rpc(ops_agent) as other:
        task, pid = await started_sleeper(ex, tmp_path)
        running = [each for each in await other.runs() if each["state"] == "running"]
        mine = max(running, key=lambda each: each["begun"])
        assert mine["detached"] is False
        await other.signal(mine["run"])
        assert not alive(pid)
        with pytest.raises(Exception, match="ended by"):
            await task


# -- curl, and worse ------------------------------------------------------------------------------------------------


async def test_curl_can_ask_too(ops_agent: OpsAgent) -> None:
    body = json.dumps({"step": {"type": "exec", "argv": ["sh", "-c", "echo out; printf '\\377' >&2; exit 4"]}})
    lines = json_lines(http(ops_agent, *post(body.encode(), *JSON)))
    shown = {name: value for line in lines for name, value in line.items()}
    assert shown["stdout"] == "out\n"
    assert shown["stderr_base64"] == "/w=="
    assert shown["result"]["exit_code"] == 4


@pytest.fixture(scope="module")
def small() -> Iterator[OpsAgent]:
    """An agent with tight limits."""
    with OpsAgent(
        max_request_bytes=4096,
        request_timeout_s=0.5,
        idle_timeout_s=1,
        max_connections=20,
        max_connections_per_principal=20,
    ) as running:
        yield running


async def test_bad_input_is_answered_and_recorded_and_never_ends_the_agent(small: OpsAgent) -> None:
    run = secrets.token_hex(8)
    good = encode_request(Exec(["true"]), run=run)
    bodies = [
        b"", b"\x01", b"\x01\x00\x00\x00\x05hello", b"\x01\xff\xff\xff\xff", b"\x7f\x00\x00\x00\x00", good[:-1],
        frame(STDIN, b"x") + good,
        encode_request(Exec(["true"]), run="../../etc"), encode_request(Exec(["true"]), run=""),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "exec", "argv": "id"}})),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "exec", "argv": []}})),
        frame(1, msgspec.msgpack.encode({"run": run, "step": {"type": "shell"}, "principal": "unix:root"})),
        frame(1, b"\x81" * 4000), frame(1, b"x" * 5000),
        encode_request(Exec(["true"]), run=run, attenuation=({"capabilities": ["nonsense"]},)),
        encode_request(Tty(["/bin/sh"]), run=run),
    ]  # fmt: skip
    for body in bodies:
        before = len(small.records())
        said = http(small, *post(body, "Accept: application/x-ndjson"))
        assert said.startswith(b"HTTP/1.1 400"), (body[:40], said)
        assert json_lines(said)[0]["error"]["code"] in ("protocol", "usage", "bad_step", "bad_capability")
        assert [line["decision"] for line in small.records()[before:]] == ["deny"]
    for text in (b"{", b"[]", b"{}", b'{"step": 1}', b"[" * 4000, b"\xff", b'{"step": {"type": "x"}}', b" " * 9000):
        assert http(small, *post(text, *JSON)).startswith(b"HTTP/1.1 400"), text[:20]
    for head in ("GET /", "NONSENSE", "GET /v1/nothing HTTP/1.1\nHost: a", "PUT /v1/steps HTTP/1.1\nHost: a", "\0\0\0"):
        said = http(small, head + "\nConnection: close")
        assert b" 400 " in said.partition(b"\r\n")[0], said
        assert small.records()[-1]["decision"] == "deny"
    for path in (
        "/v1/runs/..%2f..%2fetc",
        "/v1/runs/x",
        "/v1/runs/AAAAAAAAAAAA",
        "/v1/runs/0123456789abcdef?offset=-1",
    ):
        said = http(small, f"GET {path} HTTP/1.1\nHost: a\nConnection: close")
        assert said.startswith(b"HTTP/1.1 400"), said
    assert http(small, "GET /v1/whoami HTTP/1.1\nHost: a\nOps-Protocol: 9.0\nConnection: close").startswith(
        b"HTTP/1.1 400"
    )
    async with rpc(small) as ex:
        await ex.run(Exec(["true"]))
    assert "Traceback" not in small.said()
    assert verify(small.state / "audit.jsonl").ok


async def test_a_slow_client_is_dropped_in_bounded_time(small: OpsAgent) -> None:
    """A request that drips in holds a connection no longer than the idle time, and its body no longer than its own."""

    def drip(data: bytes) -> float:
        begun = time.monotonic()
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.05)
            link.connect(str(small.socket))
            for at in range(10_000):
                try:
                    link.sendall(data[at : at + 1] or b"x")
                    if link.recv(100) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        return time.monotonic() - begun

    head = b"POST /v1/steps HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n"
    assert await asyncio.to_thread(drip, b"GET /v1/whoami HTTP/1.1\r\nX: " + b"y" * 3000) < 3
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(small.socket))
        link.sendall(head + b"\x01\x00")
        assert b"400" in await asyncio.to_thread(link.recv, 1000)


async def test_connections_over_the_bound_are_closed_and_come_free_again(small: OpsAgent) -> None:
    held = []
    for _ in range(30):
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(small.socket))
        held.append(link)
    try:
        async with rpc(small) as ex:
            with pytest.raises(HostUnreachable):
                await ex.run(Exec(["true"]))
    finally:
        for link in held:
            link.close()
    async with rpc(small) as ex:
        await ex.run(Exec(["true"]))


# -- starting, reloading --------------------------------------------------------------------------------------------


async def test_reloading_takes_the_new_grants_or_keeps_the_old_and_says_so() -> None:
    with OpsAgent(grant("exec:/bin/true")) as agent:
        async with rpc(agent) as ex:
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(["/bin/false"]))
            agent.write_config(grant("exec:/bin/false"))
            agent.send(signal.SIGHUP)
            await eventually(lambda: "reloaded: 1 grants" in agent.said(), within_s=10, what="reload")
            assert (await ex.run_streaming(Exec(["/bin/false"]))).exit_code == 1
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(["/bin/true"]))
            agent.config.write_text(agent.config.read_text().replace("capabilities", "capabilites"))
            agent.send(signal.SIGHUP)
            await eventually(lambda: "not reloaded" in agent.said(), within_s=10, what="refusal")
            assert "unknown key 'capabilites'" in agent.said()
            assert (await ex.run_streaming(Exec(["/bin/false"]))).exit_code == 1


async def test_the_service_manager_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"\0ops-agent-test-{os.getpid()}-{secrets.token_hex(4)}"
        manager.bind(name)
        manager.settimeout(10)
        with OpsAgent(environment={"NOTIFY_SOCKET": "@" + name[1:]}) as agent:
            assert b"READY=1" in manager.recv(4096)
            agent.send(signal.SIGHUP)
            assert b"RELOADING=1\nMONOTONIC_USEC=" in manager.recv(4096)
            assert b"READY=1" in manager.recv(4096)
            agent.end()
            assert b"STOPPING=1" in manager.recv(4096)


def start_and_say(agent: OpsAgent) -> tuple[int, str]:
    argv = [sys.executable, "-m", "agent", "--config", str(agent.config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, cwd=REPOSITORY, check=False)
    return done.returncode, done.stderr


async def test_a_second_agent_and_an_unsafe_directory_are_refused() -> None:
    with OpsAgent() as agent:
        assert stat.S_IMODE(agent.socket.stat().st_mode) == 0o600
        status, said = start_and_say(agent)
        assert (status, "another agent holds" in said) == (3, True)
        agent.end(signal.SIGKILL)
        agent.socket.parent.chmod(0o777)
        status, said = start_and_say(agent)
        assert (status, "is writable for others" in said) == (3, True)
        agent.socket.parent.chmod(0o755)
        agent.socket.unlink()
        agent.socket.write_text("not a socket")
        status, said = start_and_say(agent)
        assert (status, "is not a socket" in said) == (3, True)
        agent.socket.unlink()
        agent.start()


async def test_a_peer_that_is_no_agent_is_refused(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nOps-Protocol: 1.0\r\nContent-Type: "
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nOps-Protocol: 2.0\r\nContent-Length: 0\r\n\r\n",
        head + b"text/html\r\nContent-Length: 2\r\n\r\nhi",
        head + b"application/vnd.opsexec.frames\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"A" * 70_000,
    ]  # fmt: skip
    for number, answer in enumerate(answers):
        path = tmp_path / f"fake{number}.sock"

        async def fake_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = answer) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(fake_agent, path)
        async with (
            server,
            AgentRpc(f"agent+unix://{path}", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex,
        ):
            with pytest.raises(ProtocolError):
                await ex.run(Exec(["true"]))


async def test_no_agent_is_said_plainly(tmp_path: Path) -> None:
    url = f"agent+unix://{tmp_path}/none.sock"
    async with connect(url, capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        with pytest.raises(HostUnreachable, match="No such file"):
            await ex.run(Exec(["true"]))


# -- through ssh ----------------------------------------------------------------------------------------------------


async def test_through_ssh_the_agent_sees_the_login(sshd: Sshd, plain_user: str) -> None:
    grants = [*grant(*EVERYTHING), {"principal": f"unix:{plain_user}", "capabilities": ["exec:/usr/bin/id -u"]}]
    with OpsAgent(grants, mode="0666") as agent:
        end = sshd.endpoint(user=plain_user)
        url = "agent+" + end.url.rstrip("/") + str(agent.socket)
        async with connect(
            url,
            capabilities=CapabilitySet.everything(),
            audit=NullAudit(),
            identity_files=[str(end.identity)],
            known_hosts=str(end.known_hosts),
            config_files=(),
        ) as ex:
            assert isinstance(ex, AgentRpc)
            assert (await ex.whoami())["principal"] == f"unix:{plain_user}"
            outputs = await asyncio.gather(*(ex.run(Exec(["/usr/bin/id", "-u"])) for _ in range(30)))
            assert {each.exit_code for each in outputs} == {0}
            with pytest.raises(CapabilityDenied):
                await ex.run(Exec(["/bin/true"]))
