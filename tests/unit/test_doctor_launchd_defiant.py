"""Jobs that defend themselves: by what launchctl prints of them, by their label, by where their definition stands.

Never on a mac: over a stand-in that keeps a state.
"""

from __future__ import annotations

import plistlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services import control
from agent.services.doctor import Request
from agent.services.quarantine import quarantine
from agent.services.release import release
from opsexec import CapabilitySet
from opsexec.capability import Capability, least
from opsexec.errors import CapabilityDenied, StepFailed
from opsexec.handlers.launchctl import parse_disabled, parse_print
from opsexec.steps import Inquire, LaunchdControl
from opsexec.steps.launchd_target import is_label, resource_of
from opsexec.testing import FakeNode, fake_executor
from tests.parts.fake_launchctl import FakeLaunchd

pytestmark = pytest.mark.anyio

NAME, TARGET = "com.example.web", "system/com.example.web"
DAEMONS = "/Library/LaunchDaemons"
PATH = f"{DAEMONS}/{NAME}.plist"
PROGRAM = {"/usr/local/bin/web": FakeNode("file", mode=0o755, data=b"\x7fELF")}
ODD_LABELS = [
    "evil job", "_x", "x~1", "\u00e9vil", "-k", "*", "?", "[a]", "web@sha256:" + "0" * 64, "a%20b", 'a"b', ".x",
    "x" * 230,
]  # fmt: skip
LINES = st.text(st.sampled_from("ab{}=\t\n\r \x0b\u2028"), max_size=40)


def mac(name: str = NAME, **keys: Any) -> FakeLaunchd:
    """One where a job of this label is loaded and runs."""
    path = f"{DAEMONS}/{name}.plist"
    job = {"Label": name, "ProgramArguments": ["/usr/local/bin/web"], "KeepAlive": True, **keys}
    host = FakeLaunchd({**PROGRAM, path: plistlib.dumps(job)})
    assert host.launchctl("bootstrap", "system", path).exit_code == 0
    return host


async def contain(host: FakeLaunchd, name: str) -> Any:
    async with fake_executor(host) as ex:
        return await quarantine(ex, Request(name), execute=True, say=lambda text: None)


async def undo(host: FakeLaunchd, name: str) -> Any:
    async with fake_executor(host) as ex:
        return await release(ex, Request(name), execute=True, start=False, say=lambda text: None)


PAGE = (
    "system/x y = {\n\tactive count = 1\n\tpath = /Library/LaunchDaemons/x.plist\n\tstate = running\n\n"
    "\targuments = {\n\t\t/bin/sh\n\t\t-c\n\t\t%s\n\t}\n\n\tdefault environment = {\n\t\tPATH => /bin\n\t}\n\n"
    "\tenvironment = {\n\t\tXPC_SERVICE_NAME => x\n\t\tA => %s\n\t}\n\n\tpid = 42\n}\n"
)


@given(LINES, LINES)
def test_no_argument_and_no_variable_makes_a_page_unreadable_or_another_state(argument, value):
    keys = parse_print(PAGE % (argument, value))
    assert keys is not None
    assert (keys["state"], keys["path"]) == ("running", "/Library/LaunchDaemons/x.plist")


@pytest.mark.parametrize(
    "odd", ["f() {", "x {", "x = {", "x\n}\n}\n}", "\tstate = not running", "}", "x\n\t}", "\u2028}"]
)
def test_a_value_with_braces_of_its_own_is_no_block_and_ends_none(odd):
    keys = parse_print(PAGE % (odd, odd))
    assert keys is not None
    assert (keys["state"], keys["pid"]) == ("running", "42")


@pytest.mark.parametrize("cut", ["", "x", "system/x = {\n", "system/x = {\n\tstate = running\n", "x\n}\n"])
def test_a_page_that_is_cut_off_is_none(cut):
    assert parse_print(cut) is None


@pytest.mark.parametrize("odd", ["f() {", "x\n}\n}", "x\n\t}\n\tstate = not running\n}", "y" * 40_000])
async def test_a_job_cant_make_itself_uncontainable_by_what_it_is_started_with(odd):
    host = mac(ProgramArguments=["/usr/local/bin/web", odd], EnvironmentVariables={"A": odd})
    async with fake_executor(host) as ex:
        assert (await control.status(ex, Request(NAME))).value["ActiveState"] == "active"
        assert (await ex.run(LaunchdControl(target=TARGET, action="bootout"), check=True)).changed
    outcome = await contain(host, NAME)
    assert outcome.ok, outcome.notes
    assert (host.jobs, PATH in host.tree.nodes) == ({}, False)
    assert (await undo(host, NAME)).ok
    assert host.jobs[TARGET].state == "running"


@pytest.mark.parametrize("label", ODD_LABELS)
async def test_a_job_of_any_printable_label_is_contained_and_released_by_it(label):
    host = mac(label)
    outcome = await contain(host, label)
    assert outcome.ok, outcome.notes
    assert host.jobs == {}
    assert host.disabled["system"][label] is True
    assert (await contain(host, label)).plan == []
    assert (await undo(host, label)).ok
    assert host.jobs[f"system/{label}"].state == "running"


@pytest.mark.parametrize("label", ODD_LABELS)
async def test_the_grant_that_a_label_asks_for_admits_that_label_alone(label):
    step = LaunchdControl(target=f"system/{label}", action="bootout")
    (needed,) = least(step.requires())
    held = CapabilitySet.of(needed, needed.replace("control", "read"))
    async with fake_executor(mac(label), held) as ex:
        assert (await ex.run(step)).changed
        for other in ("web", "a", "evil", "x", "evil%20job", "anything"):
            with pytest.raises(CapabilityDenied):
                await ex.run(LaunchdControl(target=f"system/{other}", action="bootout"))
            with pytest.raises(CapabilityDenied):
                await ex.run(Inquire(ask="launchd.job", subject=f"system/{other}"))


@given(st.text(min_size=1, max_size=30).filter(is_label), st.text(min_size=1, max_size=30).filter(is_label))
def test_two_labels_never_share_a_grant(one, other):
    needs = [LaunchdControl(target=f"system/{each}", action="kill").requires()[0] for each in (one, other)]
    grant = Capability.parse(str(needs[0]))
    assert [grant.admits(each) for each in needs] == [True, one == other]
    assert "*" not in resource_of(f"system/{one}")


def test_a_label_with_a_quote_is_in_the_database_of_overrides_as_it_is():
    assert parse_disabled('\t"a" => enabled" => disabled\n\t"b" => true\n') == {'a" => enabled': True, "b": True}


@pytest.mark.parametrize(
    ("path", "login", "domain", "admitted"),
    [
        ("/tmp/x/Library/LaunchAgents/w.plist", 501, "gui/501", False),
        ("/Users/other/Library/LaunchAgents/w.plist", 501, "gui/501", False),
        ("/Users/me/x/Library/LaunchAgents/w.plist", 501, "gui/501", False),
        ("/Users/me/Library/LaunchAgents/w.plist", 501, "gui/502", False),
        ("/Users/me/Library/LaunchAgents/w.plist", 501, "gui/501", True),
        ("/Users/me/Library/LaunchAgents/w.plist", 501, "user/501", True),
        ("/Library/LaunchAgents/w.plist", 501, "gui/501", True),
    ],
)
async def test_a_logins_job_is_loaded_from_its_own_home_alone(path, login, domain, admitted):
    host = FakeLaunchd({**PROGRAM, path: plistlib.dumps({"Label": "w", "Program": "/tmp/x/run"})}, login=login)
    step = LaunchdControl(target=f"{domain}/w", action="bootstrap", path=path)
    async with fake_executor(host) as ex:
        for check in (True, False):
            if admitted:
                assert (await ex.run(step, check=check)).changed
            else:
                with pytest.raises(StepFailed, match="own home"):
                    await ex.run(step, check=check)
    assert (f"{domain}/w" in host.jobs) is admitted


async def test_a_definition_copied_back_by_hand_is_contained_again_and_two_names_of_one_file_are_half_a_move():
    for same in (False, True):
        host = mac()
        await contain(host, NAME)
        (waiting,) = (each for each in host.tree.nodes if each.endswith("/held/definition"))
        held = host.tree.nodes[waiting]
        host.tree.nodes[PATH] = held if same else FakeNode("file", data=held.data)
        assert host.launchctl("enable", TARGET).exit_code == 0
        assert host.launchctl("bootstrap", "system", PATH).exit_code == 0
        outcome = await contain(host, NAME)
        assert outcome.ok, outcome.notes
        assert PATH not in host.tree.nodes
        assert len([each for each in host.tree.nodes if "/earlier-" in each]) == (0 if same else 1)
        assert (await undo(host, NAME)).ok
        assert host.tree.nodes[PATH].data == held.data
        assert host.jobs[TARGET].state == "running"
