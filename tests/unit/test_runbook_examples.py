"""The examples are what they say: valid by schema, loadable, the same in YAML and Python, with these commands."""

from __future__ import annotations

import importlib.util
import json
import shlex
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from opsexec.capability import Requirement
from opsexec.errors import BadInventory, BadRunbook, UsageError
from opsexec.inventory import Inventory
from opsexec.runbook import Runbook, RunOptions, execute, least_capabilities
from opsexec.schema import NAMES, schema
from opsexec.testing import FakeHost, fake_executor

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNBOOKS = sorted(EXAMPLES.glob("*/*.yaml"))
INVENTORIES = sorted(EXAMPLES.glob("*/inventory.toml"))


def valid(kind: str, data: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema(kind)).is_valid(data))


@pytest.mark.parametrize("kind", NAMES)
def test_the_schema_itself_is_valid(kind):
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    json.dumps(schema(kind))


def test_an_unknown_schema_is_a_usage_error():
    with pytest.raises(UsageError):
        schema("x")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.name)
def test_every_example_runbook_is_valid_and_loads(path):
    data = YAML(typ="safe", pure=True).load(path)
    jsonschema.Draft202012Validator(schema("runbook")).validate(data)
    assert Runbook.load(path).steps


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda p: p.parent.name)
def test_every_example_inventory_is_valid_and_loads(path):
    data = tomllib.loads(path.read_text())
    jsonschema.Draft202012Validator(schema("inventory")).validate(data)
    assert len(Inventory.parse(path.read_text()))


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda p: p.name)
def test_every_example_grants_itself_what_its_steps_need(path):
    runbook = Runbook.load(path)
    held = runbook.capability_set()
    assert held is not None
    for text in least_capabilities(runbook):
        verb, _, pattern = text.partition(":")
        resource: str | tuple[str, ...] = tuple(shlex.split(pattern)) if verb == "exec" else pattern
        assert held.admits(Requirement(verb, resource)), text


def promotion_in_python() -> Runbook:
    spec = importlib.util.spec_from_file_location("promote", EXAMPLES / "promotion/promote.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Runbook = module.runbook
    return made


def test_the_promotion_in_python_is_the_promotion_in_yaml():
    loaded = Runbook.load(EXAMPLES / "promotion/promote.yaml")
    assert promotion_in_python() == loaded
    assert promotion_in_python().digest == loaded.digest


UNIT = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"


class Hosts:
    """Fake hosts for an example's inventory, kept in the order in which they are opened."""

    def __init__(self, directory: str, **made: FakeHost) -> None:
        self.inventory = Inventory.parse((EXAMPLES / directory / "inventory.toml").read_text())
        self.made = made
        self.opened: list[str] = []

    def connect(self, host, capabilities):
        self.opened.append(host.name)
        return fake_executor(self.made[host.name], capabilities)


def web(version: str, *, broken: bool = False) -> FakeHost:
    from opsexec.testing import FakeNode

    host = FakeHost(
        dirs=["/srv/web/releases/1.4.2"],
        answers={
            "sh **": 0,
            "systemctl --no-pager --no-ask-password show **": UNIT,
            "systemctl **": 0,
            "curl **": 22 if broken else f"{version} on it\n",
        },
        syncs={"/srv/web/releases/1.4.2/": ["<f+++++++++ index.html"]},
    )
    host.tree.nodes["/srv/web/current"] = FakeNode("link", target="/srv/web/releases/1.4.1")
    return host


@pytest.mark.anyio
@pytest.mark.parametrize("made", [promotion_in_python, lambda: Runbook.load(EXAMPLES / "promotion/promote.yaml")])
async def test_the_promotion_passes_its_gates_in_order(made):
    hosts = Hosts("promotion", **{f"web{i}": web("1.4.2") for i in range(1, 7)})
    report = await execute(made(), hosts.inventory, hosts.connect, RunOptions(yes=True))
    assert report.exit_code == 0, [s for h in report.hosts.values() for s in h.steps if s.error]
    assert hosts.opened == ["web1", "web2", "web3", "web4", "web5", "web6"]
    host = hosts.made["web4"]
    assert host.tree.nodes["/srv/web/current"].target == "/srv/web/releases/1.4.2"
    assert host.content("/srv/web/releases/1.4.2/release.txt") == b"1.4.2 on web4\n"
    restarts = [call for call in host.calls if call[:1] == ["process"] and "restart" in call]
    assert len(restarts) == 1


@pytest.mark.anyio
async def test_a_broken_release_is_rolled_back_and_held_back(monkeypatch):
    monkeypatch.setattr("anyio.sleep", _no_wait)
    hosts = Hosts("promotion", web1=web("1.4.2", broken=True))
    runbook = Runbook.load(EXAMPLES / "promotion/promote.yaml")
    report = await execute(runbook, hosts.inventory, hosts.connect, RunOptions(yes=True))
    assert hosts.opened == ["web1"]
    assert hosts.made["web1"].tree.nodes["/srv/web/current"].target == "/srv/web/releases/1.4.1"
    assert report.totals == {"ok": 0, "changed": 0, "skipped": 5, "failed": 1, "unreachable": 0}
    assert report.exit_code == 1


async def _no_wait(_delay: float) -> None:
    return None


@pytest.mark.anyio
async def test_the_app_is_built_signed_notarized_and_published_with_exactly_these_commands(monkeypatch):
    monkeypatch.setenv("ANNOUNCE_TOKEN", "t0ken-value")
    mac = FakeHost(
        answers={"xcrun notarytool **": '{"status": "Accepted"}', "/** **": 0}, dirs=["/Users/builder/release/build"]
    )
    server = FakeHost(answers={"/** **": 0}, dirs=["/srv/downloads/Example"])
    hosts = Hosts("macos-app", mac1=mac, downloads=server)
    runbook = Runbook.load(EXAMPLES / "macos-app/release.yaml")
    options = RunOptions(yes=True, vars={"version": "2.1.0", "build": "7"})
    report = await execute(runbook, hosts.inventory, hosts.connect, options)
    assert report.exit_code == 0, [s for h in report.hosts.values() for s in h.steps if s.error]
    work, app = "/Users/builder/release", "/Users/builder/release/build/Example.app"
    zipped = f"{work}/build/Example-2.1.0.zip"
    here = str(EXAMPLES / "macos-app")
    assert mac.calls == [
        ["push", f"{here}/", f"{work}/src/"],
        [
            "process", "/usr/bin/xcodebuild", "archive", "-project", f"{work}/src/Example.xcodeproj", "-scheme",
            "Example", "-archivePath", f"{work}/build/Example.xcarchive", "MARKETING_VERSION=2.1.0",
            "CURRENT_PROJECT_VERSION=7", "DEVELOPMENT_TEAM=ABCDE12345",
        ],
        [
            "process", "/usr/bin/xcodebuild", "-exportArchive", "-archivePath", f"{work}/build/Example.xcarchive",
            "-exportPath", f"{work}/build", "-exportOptionsPlist", f"{work}/src/ExportOptions.plist",
        ],
        [
            "process", "/usr/bin/codesign", "--force", "--options", "runtime", "--timestamp", "--sign",
            "Developer ID Application: Example (ABCDE12345)", app,
        ],
        ["process", "/usr/bin/codesign", "--verify", "--deep", "--strict", "--verbose=2", app],
        ["process", "/usr/bin/ditto", "-c", "-k", "--keepParent", app, zipped],
        [
            "process", "/usr/bin/xcrun", "notarytool", "submit", zipped, "--keychain-profile", "release", "--wait",
            "--output-format", "json",
        ],
        ["process", "/usr/bin/xcrun", "stapler", "staple", app],
        ["process", "/usr/sbin/spctl", "--assess", "--type", "execute", "--verbose=4", app],
        ["process", "/usr/bin/ditto", "-c", "-k", "--keepParent", app, zipped],
        ["pull", f"{here}/dist/", zipped],
        ["remove", f"{work}/build"],
    ]  # fmt: skip
    assert server.calls == [
        ["push", f"{here}/dist/Example-2.1.0.zip", "/srv/downloads/Example/"],
        ["link", "/srv/downloads/Example/latest.zip"],
        ["process", "/usr/bin/curl", "--config", "-", "--fail", "--silent", "https://hooks.example/releases"],
    ]
    (sent,) = server.received
    assert b'header = "Authorization: Bearer t0ken-value"' in sent
    assert not any("t0ken" in word for call in server.calls for word in call)


STEPS = st.fixed_dictionaries(
    {},
    optional={
        "exec": st.just(["id"]) | st.just("id") | st.just([]),
        "shell": st.just({"action": "a", "script": "b"}) | st.just({"action": "a"}),
        "write": st.just({"path": "/x", "content": "y"}) | st.just({"path": "/x", "contents": "y"}),
        "remove": st.just("/x"),
        "facts": st.just(["os"]),
        "name": st.just("n"),
        "bogus": st.just(1),
        "timeout": st.just(3) | st.just("soon"),
        "retry": st.just({"times": 1}) | st.just({"times": 0}) | st.just({"delay": 1}),
        "tags": st.just(["a"]) | st.just("a"),
        "allow_failure": st.booleans() | st.just("perhaps"),
    },
)


@given(STEPS)
def test_the_schema_and_the_loader_agree_about_a_step(step):
    data = {"name": "t", "hosts": "all", "steps": [step]}
    loads = True
    try:
        Runbook.parse(json.dumps(data))
    except BadRunbook:
        loads = False
    assert valid("runbook", data) is loads


@pytest.mark.parametrize(
    ("table", "fits"),
    [
        ({"url": "local:"}, True),
        ({"url": "ssh://h", "vars": {"t": {"from_env": "X"}}}, True),
        ({"url": "gopher://h"}, False),
        ({"url": "local:", "group": ["x"]}, False),
        ({"url": "local:", "groups": "x"}, False),
        ({"url": "local:", "host_keys": "no"}, False),
    ],
)
def test_the_schema_and_the_loader_agree_about_a_host(table, fits):
    loads = True
    text = "[hosts.a]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
    try:
        Inventory.parse(text)
    except BadInventory:
        loads = False
    assert valid("inventory", {"hosts": {"a": table}}) is loads is fits


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
