"""A real ops-agent: who asks, what they may do, what is recorded, and that nothing a client sends ends it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

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
    connect,
)
from opsexec.audit import verify
from opsexec.errors import (
    AuditUnavailable,
    CapabilityDenied,
    ConnectionLost,
    LimitExceeded,
)
from opsexec.wire import PROTOCOL, encode_request
from tests.integration.conftest import require_root
from tests.parts.agent_calls import ME, grant, http, json_lines, post, rpc, started_sleeper
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.process_tree import alive
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


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
