"""From an agent's proposal to a changed bottle: by a real MCP client, the commands, a rebuild, and the dashboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bottle.state import State
from opsexec.audit import verify
from tests.conftest import require
from tests.parts.bottle_running import Bottles, processes_with
from tests.parts.plain_bottles import plain_bottles
from tests.parts.supervised import INSIDE, Supervised, host_tree
from tests.parts.supervised_bottles import OPEN, PROPOSE, supervised_bottles
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now


@pytest.fixture(scope="module")
def bottles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottles]:
    manifests = {"dev": OPEN, "plain": "env:\n  A: b\n", "hop": OPEN.replace("127.0.0.7", "127.0.0.9")}
    agents = {"rebuilt": "dev", "hopping": "hop", "plain": "plain"}
    with supervised_bottles(
        request, tmp_path_factory, ("open.test", "new.test"), manifests, answer_s=20, agents=agents
    ) as made:
        yield made


def waits(bottle: Supervised) -> dict[str, Any]:
    """The one proposal that waits, once it does."""
    return eventually_now(bottle.proposals, within_s=30, what="a proposal")[0]


def test_an_approved_route_is_in_force_without_a_restart_and_the_waiting_agent_is_told(bottle: Supervised) -> None:
    agents = processes_with(bottle.identity.encode())
    number = bottle.begin(
        """
found['before'] = status('https://open.test/b')
found['said'] = tool('propose_route', host='open.test', path_allowlist=['/b'], why='the manual is there')
found['after'] = status('https://open.test/b')
found['routes'] = tool('list_routes')['routes']
"""
    )
    waiting = waits(bottle)
    shown = bottle.bottles.command("proposals").stdout
    assert waiting["id"] in shown
    assert "the manual is there" in shown
    assert "+ egress open.test: path /b" in shown
    done = bottle.bottles.command("approve", waiting["id"])
    assert done.returncode == 0, done.stderr
    assert "in force: + egress open.test: path /b" in done.stdout
    found = bottle.end(number)
    assert found["before"] == 403
    assert found["said"] == {"proposal": waiting["number"], "status": "approved", "reason": ""}
    assert found["after"] == 200
    assert found["routes"][0]["path_allowlist"] == ["/a", "/b"]
    assert [each.path for each in bottle.bottles.upstream.requests] == ["/b"]
    assert set(agents) <= set(processes_with(bottle.identity.encode()))
    record = bottle.records("decision")[-1]
    assert record["step"]["diff"] == ["+ egress open.test: path /b"]
    assert (record["decision"], record["layer"]) == ("allow", "operator")
    assert verify(bottle.state / "audit.jsonl").ok


def test_a_rejection_reaches_the_waiting_agent_with_its_reason(bottle: Supervised) -> None:
    number = bottle.begin("found['said'] = tool('propose_route', host='new.test', path_allowlist=['/n'], why='w')")
    waiting = waits(bottle)
    done = bottle.bottles.command("reject", waiting["id"], "--reason", "use open.test")
    assert done.returncode == 0, done.stderr
    said = bottle.end(number)["said"]
    assert said == {"proposal": waiting["number"], "status": "rejected", "reason": "use open.test"}
    assert bottle.records("decision")[-1]["decision"] == "deny"


def test_an_approval_may_be_of_less_than_was_asked(bottle: Supervised, tmp_path: Path) -> None:
    number = bottle.begin("found['said'] = tool('propose_route', host='open.test', why='all of it')")
    waiting = waits(bottle)
    assert bottle.bottles.command("approve", waiting["id"]).returncode == 2
    less = tmp_path / "less.json"
    less.write_text(json.dumps({**waiting["change"], "path_allowlist": ["/less"]}))
    wrong = bottle.bottles.command("approve", waiting["id"], "--as", str(tmp_path / "none.json"))
    assert wrong.returncode == 2
    done = bottle.bottles.command("approve", waiting["id"], "--as", str(less))
    assert done.returncode == 0, done.stderr
    assert bottle.end(number)["said"]["reason"] == "as the operator edited it"
    found = bottle.inside("found['said'] = [status(f'https://open.test/{each}') for each in ('less', 'more')]")
    assert found["said"] == [200, 403]


def test_egress_started_again_enforces_the_policy_of_now(bottle: Supervised) -> None:
    """LC6: what was approved stays, and what was not stays out, when a daemon dies and comes back."""
    number = bottle.begin("found['said'] = tool('propose_route', host='open.test', path_allowlist=['/kept'], why='w')")
    done = bottle.bottles.command("approve", waits(bottle)["id"])
    assert done.returncode == 0, done.stderr
    bottle.end(number)
    again = bottle.bottles.command("restart", bottle.identity, "egress")
    assert again.returncode == 0, again.stderr
    log = bottle.state / "bundle.log"
    eventually_now(lambda: log.read_text().count('"daemon":"egress"') >= 2, within_s=30, what="egress is back")
    found = bottle.inside("found['said'] = [status(f'https://open.test/{each}') for each in ('kept', 'other')]")
    assert found["said"] == [200, 403]


@asynccontextmanager
async def client_of(bottle: Supervised, **options: Any) -> AsyncIterator[Any]:
    """A real MCP client at the bottle's own door."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    door = httpx2.AsyncHTTPTransport(uds=str(bottle.state / "doors" / "supervise.sock"))
    async with httpx2.AsyncClient(transport=door, timeout=60) as web:
        transport = streamable_http_client("http://127.0.0.1:8879/mcp", http_client=web)
        async with Client(transport, **options) as client:
            yield client


@pytest.mark.anyio
async def test_an_ordinary_mcp_client_lists_calls_and_is_refused(bottle: Supervised) -> None:
    async with client_of(bottle) as client:
        tools = (await client.list_tools()).tools
        assert [each.name for each in tools][:2] == ["list_routes", "propose_route"]
        routes = await client.call_tool("list_routes", {})
        assert routes.structured_content["routes"][0]["host"] == "open.test"
        bad = await client.call_tool("propose_route", {"host": "*.test", "why": "w"})
        assert bad.is_error
        assert bad.structured_content["status"] == "refused"


def test_a_bottle_without_supervise_has_no_such_door(bottles: Bottles) -> None:
    ended = bottles.script("plain", "found['said'] = connects(socket.AF_INET, ('127.0.0.1', 8879))")
    assert ended.code == 0, ended.stderr
    assert ended.answers["said"] != "connected"
    assert not (bottles.state(ended.identity) / "supervise").exists()


@pytest.fixture
def tree() -> Iterator[Path]:
    with host_tree() as place:
        yield place


def test_an_approved_capability_rebuilds_the_bottle_and_resumes_it_in_its_home(bottles: Bottles, tree: Path) -> None:
    bottles = Bottles(bottles.root, bottles.upstream, env={"SUPERVISE_RESPONSE_TIMEOUT_SECONDS": "0.3"})
    bottle = Supervised.start(bottles, "rebuilt")
    try:
        find = "import subprocess, shutil\nfound['where'] = shutil.which('only-here')\n"
        assert bottle.inside(find + "(HOME / 'mine').write_text('kept')")["where"] is None
        waiting = bottle.proposed(f"tool('propose_capability_change', read_only={str(tree)!r}, why='the compiler')")
        assert waiting["difference"] == [f"+ host directory {tree}: read-only, its bin in PATH"]
        assert bottle.bottles.command("approve", waiting["id"]).returncode == 2
        done = bottle.bottles.command("approve", waiting["id"], "--accept-risks")
        assert done.returncode == 0, done.stderr
        # What it said of its first start was read while it started.
        eventually_now(lambda: " is running" in bottle.screen, within_s=60, what="it is resumed")
        found = bottle.inside(
            find
            + f"""
found['says'] = subprocess.run(['only-here'], capture_output=True, text=True).stdout
found['mine'] = (HOME / 'mine').read_text()
found['status'] = tool('proposal_status', proposal={waiting["number"]})
try:
    (Path({str(tree)!r}) / 'x').write_text('')
except OSError as error:
    found['written'] = str(error)
"""
        )
        assert found["where"] == str(tree / "bin" / "only-here")
        assert found["says"] == "from the tree\n"
        assert found["mine"] == "kept"
        assert found["status"]["status"] == "approved"
        assert "Read-only" in found["written"]
        # What can't be mounted: the bottle goes on as it was, and the agent is told.
        gone = bottle.proposed(f"tool('propose_capability_change', read_only='{tree}-none', why='another')")
        before = bottle.screen.count(" is running")
        assert bottle.bottles.command("approve", gone["id"], "--accept-risks").returncode == 0
        eventually_now(lambda: bottle.screen.count(" is running") > before, within_s=60, what="it goes on")
        said = bottle.inside(f"found['said'] = tool('proposal_status', proposal={gone['number']})")["said"]
        assert said["status"] == "failed"
        assert bottle.policy()["trees"] == [str(tree)]
        assert bottle.records("decision")[-1]["decision"] == "deny"
        assert verify(bottle.state / "audit.jsonl").ok
    finally:
        bottle.stop()
    # An approval lasts as long as its bottle runs.
    again = Supervised.resumed(bottles, bottle.identity)
    try:
        assert again.inside("import shutil\nfound['where'] = shutil.which('only-here')")["where"] is None
        assert f"was in force when it ended, and isn't now: host directory {tree}" in again.screen
        assert again.kept() == []
    finally:
        again.stop()


def test_a_launcher_that_hangs_takes_no_decision_and_the_person_is_told(bottle: Supervised) -> None:
    """SV15's nearer half: nobody answers, so nothing is granted, and the decision doesn't lie around."""
    waiting = bottle.proposed(PROPOSE.replace("open.test", "new.test").replace("/board", "/hang"))
    os.kill(bottle.launcher.pid, signal.SIGSTOP)
    try:
        from bottle.operator import deciding

        state = State(bottle.bottles.root.path)
        shown = next(each for each in bottle._waiting() if each.token == waiting["id"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deciding, "ANSWER_S", 0.5)
            with pytest.raises(deciding.NotCarriedOut):
                deciding.approve(state, shown, accept_risks=True)
    finally:
        os.kill(bottle.launcher.pid, signal.SIGCONT)
    assert list((bottle.queue / "decisions").iterdir()) == []
    assert bottle.inside("found['said'] = status('https://new.test/hang')")["said"] == 0
    assert [each["id"] for each in bottle.proposals()] == [waiting["id"]]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_approval_that_is_broken_off_is_carried_out_whole_or_not_at_all(
    bottle: Supervised, how: signal.Signals
) -> None:
    """Between the decision and its answer. A person who can still say so takes it back; the dead one's word stands."""
    # A host of its own each: about one that was said no to three times nothing is asked any more.
    host, path = "open.test" if how is signal.SIGKILL else f"cut{how.value}.test", f"/cut-{how.value}"
    waiting = bottle.proposed(PROPOSE.replace("/board", path).replace("open.test", host))
    before = len(bottle.records("decision"))
    os.kill(bottle.launcher.pid, signal.SIGSTOP)
    try:
        argv = bottle.bottles.argv("approve", waiting["id"], "--accept-risks")
        person = subprocess.Popen(argv, env=bottle.bottles.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        left = bottle.queue / "decisions"
        eventually_now(lambda: list(left.glob("[0-9a-f]*.json")), within_s=20, what="it is decided")
        person.send_signal(how)
        _, said = person.communicate(timeout=20)
        assert b"Traceback" not in said
        assert person.returncode == (-how.value if how is signal.SIGKILL else 128 + how.value)
        assert len(list(left.iterdir())) == (how is signal.SIGKILL)
    finally:
        os.kill(bottle.launcher.pid, signal.SIGCONT)
    reach = f"found['said'] = status('https://{host}{path}')"
    if how is signal.SIGKILL:
        number = waiting["number"]
        eventually_now(
            lambda: [each for each in bottle.kept() if (each["number"], each["status"]) == (number, "approved")],
            within_s=20, what="it is carried out",
        )  # fmt: skip
        (record,) = bottle.records("decision")[before:]
        assert (record["decision"], record["step"]["proposal"]) == ("allow", number)
        assert record["step"]["diff"] == [f"+ egress open.test: path {path}"]
    assert bottle.inside(reach)["said"] == (200 if how is signal.SIGKILL else 0)
    policy, table = json.dumps(bottle.policy()), json.dumps(bottle.table())
    assert (path in policy) == (path in table) == (how is signal.SIGKILL)
    if how is not signal.SIGKILL:
        assert bottle.records("decision")[before:] == []
        assert [each["id"] for each in bottle.proposals()] == [waiting["id"]]
    assert list(left.iterdir()) == []
    assert verify(bottle.state / "audit.jsonl").ok


def test_an_approval_reaches_the_second_hop_too(bottles: Bottles, tmp_path: Path) -> None:
    """With pipelock in the bundle the approved host is on its list, and it is up again when the agent is told."""
    require(os.getuid() == 0, "needs root, for an upstream on port 443")
    fake = Path(__file__).parents[1] / "parts" / "fake_pipelock.py"
    directory = tmp_path / "upstream"
    directory.mkdir()
    with Upstream(directory, ("open.test", "new.test"), address="127.0.0.9", port=443) as upstream:
        hopping = Bottles(bottles.root, upstream, env={**bottles.env, "BOTTLE_PIPELOCK": str(fake)})
        bottle = Supervised.start(hopping, "hopping")
        try:
            paths = "found['said'] = [status(f'https://open.test/{each}') for each in ('a', 'hop')]"
            assert bottle.inside(paths)["said"] == [200, 403]
            number = bottle.begin(
                "found['said'] = tool('propose_route', host='open.test', path_allowlist=['/hop'], why='w')\n"
                "found['more'] = tool('propose_pipelock_change', host='open.test', tls_passthrough=True, why='w')"
            )
            first = waits(bottle)
            done = hopping.command("approve", first["id"])
            assert done.returncode == 0, done.stderr
            second = eventually_now(
                lambda: [each for each in bottle.proposals() if each["kind"] == "pipelock"],
                within_s=30,
                what="the second",
            )[0]
            assert second["difference"] == ["+ pipelock open.test: TLS passes unread"]
            done = hopping.command("approve", second["id"], "--accept-risks")
            assert done.returncode == 0, done.stderr
            found = bottle.end(number)
            assert [found["said"]["status"], found["more"]["status"]] == ["approved", "approved"]
            assert bottle.inside(paths)["said"] == [200, 200]
            config = json.loads((bottle.state / "bundle" / "pipelock.json").read_text())
            assert "open.test" in config["tls_interception"]["passthrough_domains"]
        finally:
            bottle.stop()


def test_a_plain_user_approves_for_a_bottle_of_his_own(shared_dir: Path, plain_user: str, tmp_path: Path) -> None:
    with Upstream(tmp_path, ("open.test",)) as upstream:
        bottles = plain_bottles(shared_dir, plain_user, upstream, dev=OPEN)
        script = (
            "tool('propose_route', host='open.test', path_allowlist=['/b'], why='w')\n"
            "print(status('https://open.test/b'), flush=True)\n"
        )
        launcher = bottles.begin("worker", ["/usr/bin/python3", "-c", INSIDE + script])
        try:
            told = eventually_now(
                lambda: json.loads(bottles.command("proposals", "--json").stdout)["proposals"],
                within_s=40,
                what="a proposal",
            )
            done = bottles.command("approve", told[0]["id"])
            assert done.returncode == 0, done.stderr
            said, _ = launcher.communicate(timeout=40)
            assert said.strip() == "200"
        finally:
            launcher.terminate()
            launcher.communicate(timeout=40)
