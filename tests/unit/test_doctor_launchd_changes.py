"""Changes on launchd where they go wrong: cut off, hanging, of another login, of somebody else. Never on a mac."""

from __future__ import annotations

import contextlib
import json
import plistlib
from typing import Any

import pytest

from agent.services import control, install
from agent.services.declaration import Declaration
from agent.services.doctor import Request
from agent.services.quarantine import quarantine
from agent.services.release import release
from opsexec import CapabilitySet
from opsexec.errors import ConnectionLost, OpsError, StepFailed, UsageError
from opsexec.steps import LaunchdControl, MoveFile, RemoveFile, WriteFile
from opsexec.testing import FakeNode, fake_executor
from tests.parts.fake_launchctl import FakeLaunchd

pytestmark = pytest.mark.anyio

NAME, TARGET = "com.example.web", "system/com.example.web"
DAEMONS = "/Library/LaunchDaemons"
PATH = f"{DAEMONS}/{NAME}.plist"
KEYS: dict[str, Any] = {"Label": NAME, "Program": "/usr/local/bin/web", "KeepAlive": True}
PROGRAM = {"/usr/local/bin/web": FakeNode("file", mode=0o755, data=b"\x7fELF")}


def mac(keys: dict[str, Any] = KEYS, path: str = PATH, domain: str = "system", **more: Any) -> FakeLaunchd:
    """One where this job is loaded."""
    host = FakeLaunchd({**PROGRAM, path: plistlib.dumps(keys)}, **more)
    assert host.launchctl("bootstrap", domain, path).exit_code == 0
    return host


def request(name: str = NAME, *, user: bool = False, **declared: Any) -> Request:
    scope = {"scope": "user"} if user else {}
    declaration = Declaration.model_validate({"name": name, **scope, **declared}) if declared else None
    return Request(name, (), user, declaration)


def quiet(text: str) -> None:
    pass


def told(host: FakeLaunchd) -> list[str]:
    words = [each[2:] for each in host.calls if each[:2] == ["process", "launchctl"]]
    return [" ".join(each) for each in words if each[0] not in ("print", "print-disabled", "managername")]


async def contain(host: FakeLaunchd, name: str = NAME, *, user: bool = False, execute: bool = True) -> Any:
    async with fake_executor(host) as ex:
        return await quarantine(ex, request(name, user=user), execute=execute, say=quiet)


async def undo(host: FakeLaunchd, name: str = NAME, *, user: bool = False, start: bool = False) -> Any:
    async with fake_executor(host) as ex:
        return await release(ex, request(name, user=user), execute=True, start=start, say=quiet)


async def test_the_order_is_capture_bootout_leftovers_disable_move_and_a_look():
    host = mac()
    outcome = await contain(host)
    assert outcome.ok
    acts = [each.id for each in outcome.done]
    assert all(each.startswith("capture.") for each in acts[:-4])
    assert acts[-4:] == ["stop", "disable", "move-definition", "verify"]
    assert told(host) == [f"bootout {TARGET}", f"disable {TARGET}"]


class CutOff:
    """An executor whose connection is lost at the n-th change."""

    def __init__(self, executor: Any, after: int) -> None:
        self._executor, self._left = executor, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    async def run(self, step: Any, *words: Any, **named: Any) -> Any:
        if isinstance(step, WriteFile | RemoveFile | MoveFile | LaunchdControl):
            if self._left == 0:
                raise ConnectionLost("the connection is gone")
            self._left -= 1
        return await self._executor.run(step, *words, **named)


async def test_a_quarantine_cut_off_anywhere_is_finished_by_the_next_and_released_as_it_was():
    for after in range(60):
        host = mac()
        before = host.tree.nodes[PATH].data
        async with fake_executor(host) as ex:
            try:
                await quarantine(CutOff(ex, after), request(), execute=True, say=quiet)
                break  # it came to its end
            except OpsError:
                pass
        outcome = await contain(host)
        assert outcome.ok, (after, outcome.notes)
        assert PATH not in host.tree.nodes
        assert (await contain(host)).plan == []
        assert (await undo(host)).ok
        assert host.tree.nodes[PATH].data == before, after
        assert host.jobs[TARGET].state == "running", after
        assert host.disabled["system"][NAME] is False, after
    assert after > 8


async def test_a_release_cut_off_anywhere_is_finished_by_the_next():
    for after in range(30):
        host = mac()
        before = host.tree.nodes[PATH].data
        await contain(host)
        async with fake_executor(host) as ex:
            try:
                await release(CutOff(ex, after), request(), execute=True, start=False, say=quiet)
                break
            except OpsError:
                pass
        await undo(host)
        assert host.tree.nodes[PATH].data == before, after
        assert host.jobs[TARGET].state == "running", after
    assert after > 3


async def test_what_a_bootout_cant_end_is_killed_and_booted_out_again():
    host = mac()
    host.hangs.add(NAME)
    outcome = await contain(host)
    assert outcome.ok
    assert told(host) == [f"bootout {TARGET}", f"kill SIGKILL {TARGET}", f"bootout {TARGET}", f"disable {TARGET}"]


async def test_what_cant_be_ended_at_all_is_told_and_everything_else_is_still_done(monkeypatch):
    host = mac()
    host.hangs.add(NAME)
    answers = host.launchctl
    with monkeypatch.context() as patched:
        patched.setattr(host, "launchctl", lambda verb, *words: answers("print" if verb == "kill" else verb, *words))
        outcome = await contain(host)
    assert not outcome.ok
    assert any("not contained" in each for each in outcome.notes)
    assert host.disabled["system"][NAME] is True
    assert PATH not in host.tree.nodes
    host.hangs.clear()
    assert (await contain(host)).ok, "the next run goes on"


async def test_a_job_that_was_not_loaded_isnt_loaded_by_a_release_and_start_loads_it():
    host = mac()
    host.launchctl("bootout", TARGET)
    await contain(host)
    await undo(host)
    assert TARGET not in host.jobs
    await contain(host)
    await undo(host, start=True)
    assert host.jobs[TARGET].state == "running"


async def test_a_job_whose_property_list_is_gone_is_contained_all_the_same():
    host = mac()
    del host.tree.nodes[PATH]
    outcome = await contain(host)
    assert outcome.ok
    assert TARGET not in host.jobs
    assert host.disabled["system"][NAME] is True
    assert (await undo(host)).ok
    assert host.disabled["system"][NAME] is False


async def test_a_property_list_under_another_name_is_found_by_its_label_moved_and_put_back():
    path = f"{DAEMONS}/innocent.plist"
    host = mac(path=path)
    before = host.tree.nodes[path].data
    assert (await contain(host)).ok
    assert path not in host.tree.nodes
    assert (await undo(host)).ok
    assert host.tree.nodes[path].data == before
    assert host.jobs[TARGET].state == "running"


async def test_a_job_loaded_from_a_place_of_its_own_is_captured_ended_and_kept_from_being_loaded():
    path = "/opt/hidden/x.plist"
    host = mac(path=path)
    outcome = await contain(host)
    assert outcome.ok
    assert TARGET not in host.jobs
    assert "capture.definition.0" in [each.id for each in outcome.done]
    assert any(f"{path} stays" in each for each in outcome.notes)
    assert host.launchctl("bootstrap", "system", path).exit_code == 119
    released = await undo(host)
    assert released.ok
    assert any("isn't loaded again" in each for each in released.notes)
    assert TARGET not in host.jobs


async def test_what_isnt_there_is_neither_stopped_nor_contained():
    host = FakeLaunchd({})
    async with fake_executor(host) as ex:
        with pytest.raises(UsageError, match="there is no"):
            await control.stop(ex, request(), execute=True)
    with pytest.raises(UsageError, match="there is no"):
        await contain(host)
    assert told(host) == []


async def test_a_repair_enables_what_is_declared_enabled():
    host = mac({**KEYS, "KeepAlive": False}, login=None)
    host.launchctl("disable", TARGET)
    async with fake_executor(host) as ex:
        outcome = await control.repair(ex, request(enable=True), execute=True)
    assert [each.id for each in outcome.done] == ["svc.disabled-override"]
    assert any("untested on a mac" in each for each in outcome.notes)
    assert host.disabled["system"][NAME] is False


@pytest.mark.parametrize(("kind", "domain"), [("Aqua", "gui/501"), ("Background", "user/501"), (None, "gui/501")])
async def test_a_logins_own_job_is_contained_in_the_domain_that_its_session_type_means(kind, domain):
    path = f"/Users/me/Library/LaunchAgents/{NAME}.plist"
    keys = {**KEYS, **({"LimitLoadToSessionType": kind} if kind else {})}
    host = mac(keys, path, domain, login=501)
    assert (await contain(host, user=True)).ok
    assert path not in host.tree.nodes
    assert told(host) == [f"bootout {domain}/{NAME}", f"disable {domain}/{NAME}"]
    assert any(each.startswith("/Users/me/.local/state/ops-agent/quarantine/") for each in host.tree.nodes)
    assert (await undo(host, user=True)).ok
    assert host.jobs[f"{domain}/{NAME}"].state == "running"


async def test_where_nobody_is_logged_in_nothing_is_done_to_a_logins_job():
    path = f"/Users/me/Library/LaunchAgents/{NAME}.plist"
    host = FakeLaunchd({path: plistlib.dumps(KEYS)}, login=501)
    host.domains.discard("gui/501")
    with pytest.raises(UsageError, match="could not find the domain"):
        await contain(host, user=True)
    assert path in host.tree.nodes


async def test_an_agent_of_all_logins_stays_where_root_put_it_and_is_disabled_for_the_login():
    path = f"/Library/LaunchAgents/{NAME}.plist"
    host = mac(path=path, domain="gui/501", login=501)
    outcome = await contain(host, user=True)
    assert outcome.ok
    assert path in host.tree.nodes
    assert host.launchctl("bootstrap", "gui/501", path).exit_code == 119
    assert (await undo(host, user=True)).ok
    assert host.disabled["gui/501"][NAME] is False


@pytest.mark.parametrize("label", ["com.apple.WindowServer", "com.openssh.sshd", "org.ops-agent", "opsexec.ops-agent"])
async def test_what_a_mac_needs_and_the_agent_itself_are_refused_by_what_their_property_list_says(label):
    host = mac({**KEYS, "Label": label})
    with pytest.raises(UsageError, match="is needed to run this host"):
        await contain(host)
    assert told(host) == []


async def test_a_daemon_asked_for_that_is_an_agent_is_refused_with_the_way():
    host = FakeLaunchd({f"/Library/LaunchAgents/{NAME}.plist": plistlib.dumps(KEYS)})
    with pytest.raises(UsageError, match="--user"):
        await contain(host)


@pytest.mark.parametrize("label", ["a/../../gui/501/b", "x\ny", "", "x\u202ey", "x" * 1001])
async def test_a_label_that_could_mean_another_job_is_refused_and_nothing_is_told_to_launchctl(label):
    host = FakeLaunchd({PATH: plistlib.dumps({**KEYS, "Label": label})})
    for work in (contain, undo):
        with contextlib.suppress(OpsError):
            await work(host)
    assert [each for each in told(host) if not each.endswith(f"system/{NAME}")] == []


async def test_a_definition_changed_while_it_was_away_isnt_put_back():
    host = mac()
    await contain(host)
    (held,) = (each for each in host.tree.nodes if each.endswith("/held/definition"))
    host.tree.nodes[held].data = plistlib.dumps({**KEYS, "Program": "/tmp/evil"})
    with pytest.raises(StepFailed, match="isn't what was taken away"):
        await undo(host)
    assert PATH not in host.tree.nodes


async def test_a_note_that_names_another_place_is_not_followed():
    host = mac()
    await contain(host)
    (note,) = (each for each in host.tree.nodes if each.endswith("/held/restore.json"))
    held = json.loads(host.tree.nodes[note].data)
    for path in ("/etc/sudoers.d/x.plist", f"{DAEMONS}/../../etc/x.plist", f"{DAEMONS}/x", f"{DAEMONS}/a/b.plist"):
        host.tree.nodes[note].data = json.dumps({**held, "path": path}).encode()
        with pytest.raises(StepFailed, match="another definition"):
            await undo(host)


async def test_what_somebody_undid_by_hand_is_contained_again_and_the_first_state_comes_back():
    host = mac()
    await contain(host)
    host.launchctl("enable", TARGET)
    assert (await contain(host)).ok
    assert host.disabled["system"][NAME] is True
    await undo(host)
    assert host.jobs[TARGET].state == "running"


async def test_a_definition_put_in_place_during_a_quarantine_is_contained_and_the_first_one_isnt_lost():
    host = mac()
    first = host.tree.nodes[PATH].data
    await contain(host)
    host.tree.nodes[PATH] = FakeNode("file", data=plistlib.dumps({**KEYS, "Program": "/tmp/new"}))
    assert (await contain(host)).ok
    assert PATH not in host.tree.nodes
    (aside,) = (each for each in host.tree.nodes if "/earlier-" in each)
    assert host.tree.nodes[aside].data == first
    assert (await undo(host)).ok
    assert plistlib.loads(host.tree.nodes[PATH].data)["Program"] == "/tmp/new"
    assert host.disabled["system"][NAME] is False


async def test_a_link_is_moved_and_put_back_and_not_loaded_through():
    host = FakeLaunchd({PATH: FakeNode("link", target="/opt/x.plist"), "/opt/x.plist": plistlib.dumps(KEYS)})
    assert (await contain(host)).ok
    assert (await undo(host)).ok
    assert host.tree.nodes[PATH].target == "/opt/x.plist"


async def test_a_note_that_names_another_job_than_the_sealed_manifest_is_not_followed():
    host = mac()
    await contain(host)
    (note,) = (each for each in host.tree.nodes if each.endswith("/held/restore.json"))
    held = json.loads(host.tree.nodes[note].data)
    host.tree.nodes[note].data = json.dumps({**held, "unit": "com.apple.other"}).encode()
    asked = len(told(host))
    with pytest.raises(StepFailed, match="another definition"):
        await undo(host, start=True)
    assert len(told(host)) == asked


async def test_an_install_over_somebody_elses_job_is_refused_loaded_or_not():
    declared: dict[str, Any] = {"enable": True, "command": ["/usr/local/bin/web"]}
    ours = f"{DAEMONS}/org.ops-agent.web.plist"
    foreign = {"Label": "org.ops-agent.web", "Program": "/usr/local/bin/web"}
    for host in (mac(foreign, ours), mac(foreign, f"{DAEMONS}/else.plist")):
        before = dict(host.tree.nodes)
        async with fake_executor(host) as ex:
            outcome = await install.install(ex, request("web", **declared), execute=True)
        assert not outcome.ok
        assert "svc.conflict" in outcome.notes[0]
        assert told(host) == []
        assert {each for each in host.tree.nodes if each.startswith("/Library")} == {
            each for each in before if each.startswith("/Library")
        }


async def test_an_install_while_it_is_in_quarantine_is_refused():
    declared: dict[str, Any] = {"enable": True, "command": ["/usr/local/bin/web"]}
    host = FakeLaunchd(dict(PROGRAM))
    async with fake_executor(host) as ex:
        assert (await install.install(ex, request("web", **declared), execute=True)).ok
        assert (await quarantine(ex, request("web", **declared), execute=True, say=quiet)).ok
        again = await install.install(ex, request("web", **declared), execute=True)
        assert any("in quarantine" in each.summary for each in again.findings)
        with pytest.raises(UsageError, match="in quarantine"):
            await control.uninstall(ex, request("web", **declared), execute=True)
        with pytest.raises(UsageError, match="masked"):
            await control.start(ex, request("web", **declared), execute=True)


async def test_a_job_that_isnt_ours_but_is_declared_is_restarted_in_place():
    host = mac({**KEYS, "KeepAlive": False})
    async with fake_executor(host) as ex:
        declared = request(enable=True, runtime="systemd", waive={"svc.conflict": "not made by us"})
        outcome = await control.start(ex, declared, execute=True, again=True)
    assert outcome.ok, outcome.notes
    assert told(host) == [f"kickstart -k {TARGET}"]


async def test_without_the_grant_nothing_is_ended_and_the_bundle_says_what_was_missing():
    held = ["facts:*", "observe:load", "service.read:*", "container.read:*", "image.read:*", "fs.read:/**"]
    host = mac()
    async with fake_executor(host, CapabilitySet.of(*held, "fs.write:/var/**")) as ex:
        outcome = await quarantine(ex, request(), execute=True, say=quiet)
    assert not outcome.ok
    assert host.jobs[TARGET].state == "running"
    assert PATH in host.tree.nodes
    assert f"service.control:{TARGET}" in str([each.error for each in outcome.done])
