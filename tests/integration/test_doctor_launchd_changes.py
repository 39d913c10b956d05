"""The changing commands on launchd, by the command line itself: real files and processes, and a `fake_launchctl`.

Nothing here was tried on a mac; what a real launchctl answers is what no test of this project can reach.
"""

from __future__ import annotations

import hashlib
import json
import plistlib
import re
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.integration.conftest import require_sshd
from tests.parts import fake_mac
from tests.parts.fake_mac import REPOSITORY, FakeMac
from tests.parts.host_key import private_key
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

pytestmark = pytest.mark.timeout(240)

CANARY = "hush-canary-4711-planted"
DAEMONS = "/Library/LaunchDaemons"
LABEL = "org.ops-agent.web"
PLIST = f"{DAEMONS}/{LABEL}.plist"
WEB = 'name = "web"\nenable = true\ncommand = ["/usr/local/bin/web"]\n'
CHANGING = ("stage", "install", "start", "stop", "restart", "uninstall", "quarantine", "release")
UNTESTED = "untested on a mac"


@pytest.fixture(scope="module")
def mac() -> Iterator[FakeMac]:
    why = fake_mac.missing()
    require(why is None, why or "")
    with fake_mac.fake_mac() as made:
        made.write("/usr/local/bin/web", "#!/bin/sh\nexec sleep 1000\n", "0755")
        yield made


@pytest.fixture
def web(mac: FakeMac) -> Iterator[FakeMac]:
    """One on which `web` is installed and runs."""
    mac.write("/etc/ops-agent/services/web.toml", WEB)
    mac.ops("install", "web", "--execute")
    mac.ops("start", "web", "--execute")
    yield mac
    mac.ops("release", "web", "--execute", rc=None)
    mac.ops("uninstall", "web", "--execute", rc=None)
    mac.set()


def state_of(mac: FakeMac) -> str:
    """All that a command could change, as text."""
    script = "find /Library /var/lib/ops-agent/ /usr/local/libexec -type f -exec sha256sum {} + 2>/dev/null | sort -k2"
    return mac.tried("sh", "-c", script).stdout + "\n".join(mac.asked())


def pid_of(mac: FakeMac, target: str = f"system/{LABEL}") -> int:
    found = re.search(r"^\tpid = (\d+)$", mac.launchctl("print", target).stdout, re.MULTILINE)
    return int(found[1]) if found else 0


def test_nothing_is_changed_unless_that_is_asked_for_and_each_plan_says_it_is_untested(web):
    before = state_of(web)
    for command in CHANGING:
        told = web.ops(command, "web", rc=None)
        assert told["executed"] is False
        assert command == "release" or told["plan"], command
        assert command == "release" or any(UNTESTED in each for each in told["notes"]), command
    assert state_of(web) == before


def test_a_service_is_installed_started_restarted_stopped_and_taken_away(mac):
    mac.write("/etc/ops-agent/services/web.toml", WEB)
    mac.set(ends_s=0.5, busy_s=1.0)  # as a mac: an end takes a while, and the label is taken for a while longer
    installed = mac.ops("install", "web", "--execute")
    assert UNTESTED in installed["stderr"]
    assert mac.launchctl("print", f"system/{LABEL}").returncode == 113, "an install starts nothing"
    assert mac.run("stat", "-c", "%a %U", PLIST) == "644 root\n"
    mac.ops("start", "web", "--execute")
    first = pid_of(mac)
    assert "sleep" in mac.run("cat", f"/proc/{first}/comm")
    assert mac.ops("start", "web", "--execute")["done"][-1].get("changed", False) is False
    mac.ops("restart", "web", "--execute")
    assert pid_of(mac) not in (0, first)
    assert mac.ops("status", "web")["value"]["ActiveState"] == "active"
    assert "active" in mac.ops("list")["notes"][0]
    mac.ops("stop", "web", "--execute")
    assert mac.launchctl("print", f"system/{LABEL}").returncode == 113
    assert mac.ops("status", "web", rc=1)["value"]["UnitFileState"] == "enabled"
    mac.ops("uninstall", "web", "--execute")
    assert not mac.exists(PLIST)
    assert not mac.exists("/var/lib/ops-agent/services/web")
    assert not mac.exists("/usr/local/libexec/ops-agent/web")
    mac.set()


def test_what_is_not_declared_enabled_is_disabled_before_its_property_list_is_there(mac):
    mac.write("/etc/ops-agent/services/web.toml", WEB.replace("true", "false"))
    done = [each["id"] for each in mac.ops("install", "web", "--execute")["done"]]
    assert done.index("disable") < done.index("install-plist")
    assert '"org.ops-agent.web" => disabled' in mac.launchctl("print-disabled", "system").stdout
    assert "only what is enabled is started" in mac.ops("start", "web", "--execute", rc=2)["stderr"]
    mac.ops("uninstall", "web", "--execute")


def test_a_changed_declaration_is_what_runs_after_a_restart(web):
    first = web.run("cat", PLIST)
    web.write("/etc/ops-agent/services/web.toml", WEB + "[lifecycle]\nshutdown_timeout_seconds = 4\n")
    told = web.ops("install", "web", "--execute")
    assert any("restart" in each for each in told["notes"])
    assert web.run("cat", PLIST) != first
    web.ops("restart", "web", "--execute")
    held = json.loads(web.run("cat", "/var/fake-launchd/state.json"))["jobs"][f"system/{LABEL}"]
    assert held["keys"]["ExitTimeOut"] == 4


RUNAWAY: dict[str, Any] = {
    "Label": "com.example.node-commander",
    "ProgramArguments": ["/nix/store/abcdefgh-node-commander/bin/run", "--api-token", f"{CANARY}-argument"],
    "EnvironmentVariables": {"API_TOKEN": CANARY, "PLAIN": f"{CANARY}-plain", "PATH": "/bin:/usr/bin"},
    "KeepAlive": True,
    "StandardOutPath": "/tmp/node-commander.log",
}
SCRIPT = f"""#!/bin/sh
export DB_PASSWORD={CANARY}-in-script
echo "token={CANARY} Authorization: Bearer {CANARY} {CANARY}-argument {CANARY}-plain"
exec sleep 1000
"""


def plant(mac: FakeMac, *, form: plistlib.PlistFormat = plistlib.FMT_XML) -> bytes:
    """Somebody else's job that is kept alive without end, with a secret in every source."""
    data = plistlib.dumps(RUNAWAY, fmt=form)
    mac.write("/nix/store/abcdefgh-node-commander/bin/run", SCRIPT, "0755")
    mac.write(f"{DAEMONS}/com.example.node-commander.plist", data, "0640")
    mac.launchctl("enable", "system/com.example.node-commander")
    assert mac.launchctl("bootstrap", "system", f"{DAEMONS}/com.example.node-commander.plist").returncode == 0
    eventually_now(
        lambda: "token" in mac.tried("cat", "/tmp/node-commander.log").stdout, within_s=20, what="the runaway logs"
    )
    return data


@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY], ids=["xml", "binary"])
def test_quarantine_explains_a_runaway_contains_it_and_release_restores_it(mac, form):
    name, target = "com.example.node-commander", "system/com.example.node-commander"
    path = f"{DAEMONS}/{name}.plist"
    data = plant(mac, form=form)
    pid = pid_of(mac, target)
    mac.set(ends_s=0.5, busy_s=1.0)
    told = mac.ops("quarantine", name, "--execute")
    assert UNTESTED in told["stderr"].splitlines()[0]
    acts = [each["id"] for each in told["done"] if not each["id"].startswith("capture.")]
    assert acts == ["stop", "disable", "move-definition", "verify"]
    assert mac.launchctl("print", target).returncode == 113
    assert f'"{name}" => disabled' in mac.launchctl("print-disabled", "system").stdout
    assert not mac.exists(path)
    assert not mac.exists(f"/proc/{pid}/cmdline")
    assert mac.launchctl("bootstrap", "system", path).returncode != 0

    bundle = told["bundle"]
    everything = mac.run("sh", "-c", f"cat {bundle}/*")
    assert CANARY not in everything
    assert {"definition.0", "script.0", "log.0", "service.state", "service.disabled"} <= {
        each["id"].removeprefix("capture.") for each in told["done"]
    }
    captured = json.loads(mac.run("sh", "-c", f"cat {bundle}/definition.0-*"))
    assert captured["EnvironmentVariables"] == {"API_TOKEN": "***", "PLAIN": "***", "PATH": "/bin:/usr/bin"}
    assert captured["ProgramArguments"] == [*RUNAWAY["ProgramArguments"][:2], "***"]
    assert re.search(r"(?m)^\s+PLAIN => \*\*\*$", mac.run("cat", f"{bundle}/state.txt"))
    assert "KeepAlive starts it again without end" in mac.run("cat", f"{bundle}/remediation.md")
    assert mac.run("find", bundle, "-type", "f", "!", "-perm", "600") == ""
    assert mac.run("stat", "-c", "%a", bundle) == "700\n"

    before = state_of(mac)
    assert "in quarantine already" in mac.ops("quarantine", name, "--execute")["notes"][0]
    assert state_of(mac) == before, "a second run changes nothing"
    assert "release it first" in mac.ops("start", name, "--execute", rc=2)["stderr"]

    mac.ops("release", name, "--execute")
    assert mac.run("sha256sum", path).split()[0] == hashlib.sha256(data).hexdigest()
    assert mac.run("stat", "-c", "%a", path) == "640\n"
    assert f'"{name}" => enabled' in mac.launchctl("print-disabled", "system").stdout
    assert pid_of(mac, target) not in (0, pid), "it was loaded, and KeepAlive starts it"
    assert "not in quarantine" in mac.ops("release", name, "--execute")["notes"][0]
    mac.set()
    mac.launchctl("bootout", target)
    mac.run("rm", path)


def test_what_was_not_loaded_and_was_disabled_is_so_again_after_a_release(mac):
    name, path = "com.example.node-commander", f"{DAEMONS}/com.example.node-commander.plist"
    mac.write(path, plistlib.dumps(RUNAWAY))
    mac.launchctl("disable", f"system/{name}")
    mac.ops("quarantine", name, "--execute")
    mac.ops("release", name, "--execute")
    assert mac.exists(path)
    assert f'"{name}" => disabled' in mac.launchctl("print-disabled", "system").stdout
    assert mac.launchctl("print", f"system/{name}").returncode == 113
    mac.run("rm", path)


@pytest.fixture(scope="module")
def agent(mac: FakeMac, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An agent there whose ceiling is the least that docs/doctor-changes.md says; returns how it is reached."""
    text = (REPOSITORY / "docs" / "doctor-changes.md").read_text()
    (least,) = (each for each in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "LaunchDaemons" in each)
    reads = ["facts:*", "observe:load", "service.read:*", "container.read:*", "image.read:*", "fs.read:/**"]
    held = reads + tomllib.loads(least)["capabilities"]
    key = private_key(tmp_path_factory.mktemp("key") / "host_key")
    mac.write("/private/tmp/oa/host_key", key.read_bytes(), "0600")
    config = '[agent]\nlisten = ["unix:/private/tmp/oa/run/agent.sock"]\nstate_dir = "/private/tmp/oa/state"\n'
    config += '[audit]\nhost_key = "/private/tmp/oa/host_key"\n'
    config += f'[[grants]]\nprincipal = "unix:root"\ncapabilities = {json.dumps(held)}\n'
    mac.write("/private/tmp/oa/config.toml", config, "0600")
    program = ["env", "-C", str(REPOSITORY), sys.executable, "-m", "agent"]
    mac.background(*program, "--config", "/private/tmp/oa/config.toml")
    eventually_now(lambda: mac.exists("/private/tmp/oa/run/agent.sock"), within_s=60, what="the agent listens")
    return "agent+unix:///private/tmp/oa/run/agent.sock"


def test_every_command_works_under_the_least_ceiling_that_the_docs_give_and_no_other_job_is_in_it(mac, agent):
    mac.write("/etc/ops-agent/services/web.toml", WEB)
    for command in ("install", "start", "quarantine", "release", "start", "restart", "stop"):
        told = mac.ops(command, "web", "--execute", "--host", agent)
        assert all(each["rc"] == 0 for each in told["done"]), told["done"]
    plant(mac)
    before = state_of(mac)
    told = mac.ops("stop", "com.example.node-commander", "--execute", "--host", agent, rc=1)
    assert "service.control:system/com.example.node-commander" in told["done"][0]["error"]
    mac.ops("quarantine", "com.example.node-commander", "--execute", "--host", agent, rc=None)
    assert mac.launchctl("print", "system/com.example.node-commander").returncode == 0
    assert mac.exists(f"{DAEMONS}/com.example.node-commander.plist")
    assert [each for each in state_of(mac).splitlines() if "ops-agent/" not in each] == [
        each for each in before.splitlines() if "ops-agent/" not in each
    ]
    mac.launchctl("bootout", "system/com.example.node-commander")
    mac.run("rm", f"{DAEMONS}/com.example.node-commander.plist")


def test_a_quarantine_and_its_release_over_ssh_are_the_same(mac, tmp_path):
    require_sshd()
    name, target = "com.example.node-commander", "system/com.example.node-commander"
    plant(mac)
    tmp_path.chmod(0o755)
    with Sshd(extra=[mac.login(tmp_path)]) as server:
        endpoint = server.endpoint()
        for file in (endpoint.identity, endpoint.known_hosts):  # the caller is in there, too
            mac.write(str(file), file.read_bytes(), "0600")
        mac.write("/root/.ssh/config", endpoint.config_block("mac"), "0600")
        contained = mac.ops("quarantine", name, "--execute", "--host", "ssh://mac")
        assert contained["host"] != "local"
        assert mac.launchctl("print", target).returncode == 113
        assert mac.ops("quarantine", name, "--execute", "--host", "ssh://mac")["plan"] == []
        mac.ops("release", name, "--execute", "--host", "ssh://mac")
    assert pid_of(mac, target) != 0
    assert CANARY not in mac.run("sh", "-c", f"cat {contained['bundle']}/*")
    mac.launchctl("bootout", target)
    mac.run("rm", f"{DAEMONS}/{name}.plist")


def test_a_launchctl_that_answers_garbage_is_told_and_nothing_is_changed(web):
    web.set(garbage=True)
    before = state_of(web)
    for command in ("install", "start", "stop", "restart", "uninstall", "quarantine", "release", "status"):
        words = (command, "web") if command == "status" else (command, "web", "--execute")
        told = web.ops(*words, rc=None)
        assert "nobody knows" in told["stderr"] or "nobody knows" in json.dumps(told), (command, told)
        assert "\x1b" not in told["stderr"]
    staged = "/var/lib/ops-agent/services/web/staged"
    changed = set(state_of(web).splitlines()) ^ set(before.splitlines())
    assert [each for each in changed if staged not in each] == []
