"""The doctor's columns for macOS, over property lists as files and a launchctl that keeps a state. Never on a mac."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest

from agent.services.check import checks
from agent.services.declaration import Declaration
from agent.services.doctor import Request, examine
from agent.services.look import Options
from agent.services.plist_lint import flaws
from opsexec import CapabilitySet, LocalExec
from opsexec.testing import Answer, FakeNode, MemoryAudit, fake_executor
from tests.parts.fake_launchctl import FakeLaunchd

pytestmark = pytest.mark.anyio

CORPUS = Path(__file__).parent.parent / "cases" / "launchd"
DAEMONS = "/Library/LaunchDaemons"
SYNTAX, RESTART = "lint.plist-syntax", "lint.restart-unbounded"

EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "good": {},
    "two-lines": {RESTART: ("KeepAlive starts it again without end, and RunAtLoad begins it",)},
    "twice": {SYNTAX: ("the key KeepAlive stands twice",)},
    "raw": {
        "lint.raw-runtime-run": ("it runs a container by itself",),
        "lint.shell-c": ("a shell is handed a script",),
        "lint.log-tmp": ("StandardOutPath is in a directory that anyone may write to",),
        "lint.secrets-in-env": ("API_TOKEN",),
    },
    "typos": {
        SYNTAX: (
            "meant is KeepAlive", "RunAtLoad is a str", "WatchPaths names a place that anyone may write to",
            "WatchPaths has ~ or $", "meant is SockServiceName", "NumberOfFiles is a str", "ProcessType 'Backgrund'",
            "Weekday 0 and 7", "Day is out of range", "not an absolute path", "go to the background",
        ),
    },
    "session": {
        "lint.session-type": ("a daemon with LimitLoadToSessionType Aqua",),
        "lint.killmode": ("AbandonProcessGroup",),
    },
    "other-name": {
        SYNTAX: ("not the file's name", "OnDemand is deprecated", "Disabled is overruled"),
        "lint.opaque-nix": ("store path",),
    },
    "cut": {SYNTAX: ("no property list",)},
    "entity": {SYNTAX: ("declares entities",)},
    "array": {SYNTAX: ("holds no dict",)},
    "openstep": {SYNTAX: ("no property list",)},
    "binary": {RESTART: ("without end",)},
    "binary-cut": {SYNTAX: ("no property list",)},
}  # fmt: skip
"""By file: what is said of it, by check; nothing else may be."""


def corpus(name: str) -> bytes:
    return (CORPUS / f"com.example.{name}.plist").read_bytes()


def job(name: str, **more) -> dict[str, FakeNode | bytes]:
    return {
        f"{DAEMONS}/com.example.{name}.plist": corpus(name),
        "/usr/local/bin/web": FakeNode("file", mode=0o755, data=b"\x7fELF"),
        **more,
    }


async def look(host, name="com.example.good", only=("svc", "lint", "backend"), *, user=False, **declared):
    declaration = Declaration.model_validate({"name": name, **declared}) if declared else None
    async with fake_executor(host) as ex:
        found = await examine(ex, Request(name, tuple(only), user, declaration))
    everything: dict[str, list] = {}
    for each in found.findings:
        everything.setdefault(each.id, []).append(each)
    return everything


def test_every_file_of_the_corpus_has_its_row():
    assert {each.name for each in CORPUS.iterdir()} == {f"com.example.{name}.plist" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_property_list_of_the_corpus_is_judged_as_its_row_says(name):
    path = f"{DAEMONS}/com.example.{name}.plist"
    found = flaws(corpus(name), path)
    assert {each.id for each in found} == set(EXPECTED[name])
    for id, texts in EXPECTED[name].items():
        said = [each.ruling.summary for each in found if each.id == id]
        for text in texts:
            assert any(text in each for each in said), said
        assert len(said) == len(texts), said
    assert "hush-canary" not in repr(found)


@pytest.mark.parametrize("name", EXPECTED)
async def test_what_the_lint_says_arrives_under_the_ids_of_the_checks(name):
    found = await look(FakeLaunchd(job(name)), f"com.example.{name}", ("lint",))
    for id in EXPECTED[name]:
        assert {each.verdict for each in found[id]} <= {"fail", "warn"}, found[id]
    broken = SYNTAX in EXPECTED[name] and name in ("cut", "entity", "array", "openstep", "binary-cut")
    if broken:
        passing = {id for id, each in found.items() if each[0].verdict == "pass"}
        assert passing == set(), passing
    assert "hush-canary" not in repr(found)


async def test_a_binary_property_list_whose_references_stand_for_a_text_without_end_takes_no_time():
    bomb: list[Any] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    keys: dict[str, Any] = {
        "EnvironmentVariables": {"A": bomb},
        "LimitLoadToSessionType": {"a": bomb},
        "KeepAlive": {"PathState": bomb},
    }
    keys |= {"Sockets": {"a": bomb}, "StartCalendarInterval": bomb, "WatchPaths": bomb, "Umask": bomb, "Program": bomb}
    data = references({**keys, "Label": "com.example.good", "ProgramArguments": bomb})
    begun = time.monotonic()
    found = await look(FakeLaunchd({f"{DAEMONS}/com.example.good.plist": data}), only=("svc", "lint"))
    assert time.monotonic() - begun < 5
    assert "Program is a list" in [each.summary for each in found[SYNTAX]]


def references(value: object) -> bytes:
    """Write a binary property list where every object stands once; plistlib would write shared lists out."""
    objects: list[bytes] = []
    places: dict[int, int] = {}

    def put(each) -> int:
        if id(each) in places:
            return places[id(each)]
        at = places[id(each)] = len(objects)
        objects.append(b"")
        if isinstance(each, str):
            text = each.encode()
            size = bytes([0x50 | len(text)]) if len(text) < 15 else b"\x5f\x11" + struct.pack(">H", len(text))
            objects[at] = size + text
        else:
            inner = [*each, *each.values()] if isinstance(each, dict) else list(each)
            count = len(each)
            kind = 0xD0 if isinstance(each, dict) else 0xA0
            size = bytes([kind | count]) if count < 15 else bytes([kind | 15, 0x10, count])
            objects[at] = size + b"".join(struct.pack(">H", put(one)) for one in inner)
        return at

    put(value)
    body, offsets = b"bplist00", []
    for each in objects:
        offsets.append(len(body))
        body += each
    table = b"".join(struct.pack(">I", each) for each in offsets)
    return body + table + struct.pack(">6xBBQQQ", 4, 2, len(objects), 0, len(body))


async def test_a_container_run_in_a_shell_is_seen_with_its_image_and_its_log():
    found = await look(FakeLaunchd(job("raw")), "com.example.raw", ("lint",))
    assert found["lint.remote-image"][0].verdict == "fail"
    assert found["lint.pull-policy"][0].verdict == "fail"
    assert "in a shell" in found["lint.raw-runtime-run"][0].summary


async def test_a_job_that_runs_as_it_should_has_nothing_that_fails():
    host = FakeLaunchd(job("good"))
    assert host.launchctl("bootstrap", "system", f"{DAEMONS}/com.example.good.plist").exit_code == 0
    host.launchctl("kickstart", "system/com.example.good")
    found = await look(host, scope="system", enable=True, waive={"svc.conflict": "not made by us"})
    assert [each for many in found.values() for each in many if each.verdict in ("fail", "unknown")] == []
    assert found["svc.state"][0].summary == "com.example.good is running"
    assert found["svc.duplicate"][0].verdict == "pass"


async def test_the_whole_life_of_a_job_is_followed():
    path = f"{DAEMONS}/com.example.two-lines.plist"
    host = FakeLaunchd(job("two-lines"))
    name = "com.example.two-lines"
    target = f"system/{name}"
    assert (await look(host, name, ("svc.state",)))["svc.state"][0].verdict == "fail"
    assert host.launchctl("bootstrap", "system", path).exit_code == 0
    assert host.launchctl("bootstrap", "system", path).exit_code == 37
    assert (await look(host, name, ("svc.state",)))["svc.state"][0].summary.endswith("is running")
    for _ in range(4711):
        host.jobs[target].end("1")
        host.jobs[target].start()
    host.jobs[target].end("78: EX_CONFIG")
    found = await look(host, name, ("svc",))
    assert "4712 starts" in found["svc.restart-count"][0].summary
    assert found["svc.restart-count"][0].fix.argv == ("launchctl", "bootout", target)
    assert found["svc.bootstrap-error"][0].verdict == "fail"
    host.launchctl("disable", target)
    declared = {"scope": "system", "enable": True}
    assert (await look(host, name, ("svc.disabled-override",), **declared))["svc.disabled-override"][
        0
    ].verdict == "fail"
    host.launchctl("bootout", target)
    assert host.launchctl("bootstrap", "system", path).exit_code == 119
    assert (await look(host, name, ("svc.state",)))["svc.state"][0].verdict == "fail"


async def test_a_loaded_job_whose_property_list_is_gone_is_stale():
    host = FakeLaunchd(job("good"))
    host.launchctl("bootstrap", "system", f"{DAEMONS}/com.example.good.plist")
    del host.tree.nodes[f"{DAEMONS}/com.example.good.plist"]
    found = await look(host, only=("svc",))
    assert found["svc.stale"][0].verdict == "fail"
    assert found["svc.stale"][0].fix.argv == ("launchctl", "bootout", "system/com.example.good")


async def test_a_second_property_list_of_the_label_is_found_whatever_its_name():
    more = {"/Library/LaunchAgents/innocent.plist": corpus("good")}
    found = await look(FakeLaunchd(job("good", **more)), only=("svc.duplicate",))
    assert found["svc.duplicate"][0].verdict == "fail"
    paths = [each.path for each in found["svc.duplicate"][0].evidence]
    assert paths == ["/Library/LaunchAgents/innocent.plist", f"{DAEMONS}/com.example.good.plist"]


async def test_a_property_list_nobody_can_read_leaves_doubles_unknown():
    more = {"/Library/LaunchAgents/odd.plist": b"\0" * 10}
    found = await look(FakeLaunchd(job("good", **more)), only=("svc.duplicate",))
    assert found["svc.duplicate"][0].verdict == "unknown"


async def test_what_others_may_write_to_fails_and_bootstrap_refuses_it():
    path = f"{DAEMONS}/com.example.good.plist"
    host = FakeLaunchd({path: FakeNode("file", mode=0o666, data=corpus("good"))})
    assert host.launchctl("bootstrap", "system", path).exit_code == 5
    found = await look(host, only=("svc.perms",))
    assert found["svc.perms"][0].verdict == "fail"


@pytest.mark.parametrize(
    ("directory", "scope", "verdict"),
    [("/Library/LaunchAgents", "user", "fail"), ("/Library/LaunchAgents", "system", "fail"),
     (DAEMONS, "system", "pass"), (DAEMONS, "user", "fail")],
)  # fmt: skip
async def test_a_job_stands_where_it_was_declared(directory, scope, verdict):
    name = "com.example.good"
    host = FakeLaunchd({f"{directory}/{name}.plist": corpus("good")})
    declaration = Declaration.model_validate({"name": name, "scope": scope})
    request = Request(name, ("svc.scope",), False, declaration)
    async with fake_executor(host) as ex:
        found = await examine(ex, request)
    assert {each.id: each.verdict for each in found.findings}["svc.scope"] == verdict


async def test_a_login_without_a_session_has_no_domain():
    files = {"/Users/me/Library/LaunchAgents/com.example.good.plist": corpus("good")}
    here = FakeLaunchd(files, login=501)
    found = await look(here, only=("backend", "svc.state"), user=True)
    assert found["backend.manager"][0].verdict == "pass"
    here.domains.discard("gui/501")
    found = await look(here, only=("backend", "svc.state"), user=True)
    assert found["backend.manager"][0].verdict == "fail"
    assert found["svc.state"][0].because == "backend.manager"


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [("Enrolled via DEP: No\nMDM enrollment: No\n", "info", "nobody manages"),
     ("MDM enrollment: Yes (User Approved)\nMDM server: https://m.example.com\n", "info", "m.example.com"),
     ("garbage", "unknown", "format"), (Answer(exit_code=1), "unknown", "ended with 1")],
    ids=["none", "managed", "garbage", "refused"],
)  # fmt: skip
async def test_who_manages_the_machine_is_told(said, verdict, words):
    async with fake_executor(FakeLaunchd({}, says={"profiles status -type enrollment": said})) as ex:
        found = await examine(ex, Request("local-runtime", ("host.mdm",)))
    (one,) = [each for each in found.findings if each.id == "host.mdm"]
    assert (one.verdict, words in one.summary) == (verdict, True), one


def test_every_check_of_services_has_a_column_for_both_managers_or_a_reason_for_one():
    only_systemd = {each.id for each in checks() if each.platforms == ("Linux",)}
    assert only_systemd == {"backend.linger", "lint.unit-syntax", "lint.exposure", "lint.quadlet", "persist.loader",
                            "container.orphan"}  # fmt: skip


@pytest.fixture
def mac(tmp_path):
    """A tree as a mac's backup has it: /etc and /var are links into /private."""
    root = tmp_path / "mac"
    for path in (
        "System/Library/CoreServices", "Library/LaunchDaemons", "Library/LaunchAgents", "private/etc/periodic/daily",
        "private/var/root/Library/LaunchAgents", "private/var/at/tabs", "Users/me/.ssh",
        "Users/me/Library/LaunchAgents",
        "Library/Security/SecurityAgentPlugins/Evil.bundle/Contents", "private/var/db/ConfigurationProfiles",
        "Users/me/Library/Application Support/com.apple.backgroundtaskmanagementagent",
    ):  # fmt: skip
        (root / path).mkdir(parents=True)
    for link in ("etc", "var", "tmp"):
        (root / link).symlink_to(f"private/{link}")
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return root


PLANTED = {
    "persist.units": ("Library/LaunchDaemons/com.evil.plist", "Users/me/Library/LaunchAgents/com.evil.plist"),
    "persist.cron": ("private/var/at/tabs/me",),
    "persist.boot": ("private/etc/periodic/daily/999.evil",),
    "persist.login": (
        "Users/me/.zshenv",
        "Users/me/Library/Application Support/com.apple.backgroundtaskmanagementagent/backgrounditems.btm",
    ),
    "persist.keys": ("Users/me/.ssh/authorized_keys",),
    "persist.authorization": ("Library/Security/SecurityAgentPlugins/Evil.bundle/Contents/evil",),
    "persist.profiles": ("private/var/db/ConfigurationProfiles/evil.mobileconfig",),
}


async def test_the_sweep_of_a_macs_tree_names_what_was_planted_in_every_kind_of_place(mac):
    async with LocalExec(capabilities=CapabilitySet.everything(), audit=MemoryAudit()) as ex:
        clean = await examine(ex, Request("local-runtime", ("persist",), options=Options(str(mac), {})))
        assert {each.id: each.verdict for each in clean.findings} == {
            **dict.fromkeys(PLANTED, "pass"), "persist.loader": "skip",
        }  # fmt: skip
        for paths in PLANTED.values():
            for path in paths:
                (mac / path).write_text("evil\n")
                (mac / path).chmod(0o644)
        found = await examine(ex, Request("local-runtime", ("persist",), options=Options(str(mac), {})))
    by_id = {each.id: each for each in found.findings}
    for id, paths in PLANTED.items():
        assert by_id[id].verdict == "warn", by_id[id]
        assert [each.path for each in by_id[id].evidence] == sorted("/" + path for path in paths)
