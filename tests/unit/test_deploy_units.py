"""The shipped units as files: systemd understands every key, their exposure has a budget, plists have no key twice."""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
import sys
import xml.parsers.expat
from pathlib import Path

import pytest

from agent.config import load_config
from tests.conftest import require

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEMD, LAUNCHD = DEPLOY / "systemd", DEPLOY / "launchd"
INSTALL = str(DEPLOY / "install.sh")

BUDGETS = {"system": 7.5, "confined": 1.7, "user": 9.6}
"""What `systemd-analyze security` may say at most, of 10 (docs/decisions/0032). The first runs whatever root may run,
in the machine's own namespaces; the last has the rights of its user and takes none away."""


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The units as an installation has them, with a program that exists."""
    require("systemd-analyze", "needs systemd-analyze (apt-get install systemd)")
    program = tmp_path / "ops-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = {}
    for kind, source in (("system", "ops-agent"), ("confined", "ops-agent"), ("user", "ops-agent.user")):
        made[kind] = tmp_path / kind / "ops-agent.service"
        made[kind].parent.mkdir()
        text = (SYSTEMD / f"{source}.service").read_text().replace("/usr/local/bin/ops-agent", str(program))
        made[kind].write_text(text)
    drop_in = tmp_path / "confined" / "ops-agent.service.d"
    drop_in.mkdir()
    shutil.copy(SYSTEMD / "10-confined.conf", drop_in)
    return made


def analyze(*words: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "XDG_RUNTIME_DIR": str(runtime), "LC_ALL": "C"}
    argv = ["systemd-analyze", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("kind", BUDGETS)
def test_systemd_has_nothing_to_say_against_a_unit(kind: str, units: dict[str, Path], tmp_path: Path) -> None:
    mode = ["--user"] if kind == "user" else []
    done = analyze(*mode, "--man=no", "verify", str(units[kind]), runtime=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_check_would_find_a_key_in_the_wrong_section(units: dict[str, Path], tmp_path: Path) -> None:
    text = units["system"].read_text()
    units["system"].write_text(text.replace("[Service]", "[Service]\nStartLimitIntervalSec=60\nRestartt=no", 1))
    assert "Restartt" in analyze("--man=no", "verify", str(units["system"]), runtime=tmp_path).stderr


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_unit_exposes_no_more_than_its_budget(kind: str, units: dict[str, Path], tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(units[kind]), runtime=tmp_path)
    said = done.stdout.rpartition("Overall exposure level for ops-agent.service: ")[2]
    assert float(said.split()[0]) <= BUDGETS[kind], done.stdout


def keys(unit: Path) -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and line[0] not in "#;":
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return sections


@pytest.mark.parametrize("name", ["ops-agent.service", "ops-agent.user.service"])
def test_restarts_are_bounded_and_runs_are_left_alone(name: str) -> None:
    unit = keys(SYSTEMD / name)
    assert unit["Unit"]["StartLimitIntervalSec"] == ["60"]
    assert unit["Unit"]["StartLimitBurst"] == ["5"]
    assert not [key for key in unit["Service"] if key.startswith("StartLimit")]
    assert unit["Service"]["KillMode"] == ["process"]
    assert unit["Service"]["Type"] == ["notify"]


def test_no_unit_hides_who_connects() -> None:
    """In a user namespace every other user shows as nobody, and SO_PEERCRED proves no one."""
    for name in ("ops-agent.service", "10-confined.conf", "ops-agent.user.service"):
        service = keys(SYSTEMD / name)["Service"]
        assert "PrivateUsers" not in service
        assert "DynamicUser" not in service


def test_the_shipped_configuration_grants_nothing() -> None:
    config = load_config(DEPLOY / "config.toml")
    assert config.grants == []
    assert config.agent.listen == ["unix:/run/ops-agent/agent.sock"]


def keys_twice(data: bytes) -> list[str]:
    """Return the keys that stand twice in a dict of a plist, which plistlib takes without a word."""
    twice: list[str] = []
    open_dicts: list[set[str]] = []
    text: list[str] | None = None

    def begin(name: str, _: dict[str, str]) -> None:
        nonlocal text
        if name == "dict":
            open_dicts.append(set())
        text = [] if name == "key" else None

    def end(name: str) -> None:
        nonlocal text
        if name == "dict":
            open_dicts.pop()
        elif name == "key" and text is not None:
            key = "".join(text)
            if key in open_dicts[-1]:
                twice.append(key)
            open_dicts[-1].add(key)
        text = None

    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = lambda data: text.append(data) if text is not None else None
    parser.Parse(data, True)
    return twice


PLISTS = sorted(LAUNCHD.glob("*.plist"))


@pytest.mark.parametrize("plist", PLISTS, ids=lambda path: path.name)
def test_a_plist_says_each_thing_once_and_what_it_must(plist: Path) -> None:
    data = plist.read_bytes()
    assert keys_twice(data) == []
    job = plistlib.loads(data)
    assert plistlib.loads(plistlib.dumps(job)) == job
    assert job["Label"] == "opsexec.ops-agent"
    assert job["ProgramArguments"][:2] == ["/usr/local/bin/ops-agent", "--config"]
    assert job["KeepAlive"] is job["RunAtLoad"] is job["AbandonProcessGroup"] is True
    assert job["ThrottleInterval"] >= 10
    assert not {"UserName", "Sockets", "EnvironmentVariables", "InitGroups"} & set(job)
    assert (job.get("LimitLoadToSessionType") == "Aqua") == plist.name.endswith(".agent.plist")


def test_a_key_that_stands_twice_is_found() -> None:
    twice = (
        PLISTS[0]
        .read_bytes()
        .replace(b"<key>RunAtLoad</key>", b"<key>Label</key><string>x</string><key>RunAtLoad</key>")
    )
    plistlib.loads(twice)
    assert keys_twice(twice) == ["Label"]


def stage(tmp_path: Path, *words: str) -> dict[str, tuple[int, str]]:
    """Return what the script puts below a directory."""
    env = {"PATH": os.environ["PATH"], "HOME": "/home/alice"}
    argv = ["/bin/sh", INSTALL, "--root", str(tmp_path), "--program", "/opt/ops/bin/ops-agent", *words]
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=20)
    return {
        "/" + str(path.relative_to(tmp_path)): (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in tmp_path.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("words", "unit", "config"),
    [
        (["--system", "--manager", "systemd"], "/etc/systemd/system/ops-agent.service", "/etc/ops-agent/config.toml"),
        (
            ["--user", "--manager", "systemd"],
            "/home/alice/.config/systemd/user/ops-agent.service",
            "/home/alice/.config/ops-agent/config.toml",
        ),
        (
            ["--system", "--manager", "launchd"],
            "/Library/LaunchDaemons/opsexec.ops-agent.plist",
            "/etc/ops-agent/config.toml",
        ),
        (
            ["--user", "--manager", "launchd"],
            "/home/alice/Library/LaunchAgents/opsexec.ops-agent.plist",
            "/home/alice/.config/ops-agent/config.toml",
        ),
    ],
)
def test_the_script_stages_a_unit_and_a_configuration_and_takes_the_unit_away_again(
    tmp_path: Path, words: list[str], unit: str, config: str
) -> None:
    made = stage(tmp_path, *words)
    assert set(made) == {unit, config}
    assert {mode for mode, _ in made.values()} == {0o644}
    text = made[unit][1]
    assert "/opt/ops/bin/ops-agent" in text
    assert config in text
    assert "@" not in text.replace("@HOME@ stands", "").replace("SystemCallFilter=~@", "").replace(" @", "")
    if unit.endswith(".plist"):
        assert plistlib.loads(text.encode())["ProgramArguments"] == ["/opt/ops/bin/ops-agent", "--config", config]
    parsed = tmp_path / "parsed.toml"
    parsed.write_text(made[config][1])
    assert load_config(parsed).grants == []
    parsed.unlink()
    assert set(stage(tmp_path, *words, "--uninstall")) == {config}
    assert stage(tmp_path, *words, "--uninstall", "--purge") == {}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "--system or --user"),
        (["--user", "--system"], 2, "not both"),
        (["--user", "--purge"], 2, "goes with --uninstall"),
        (["--user", "--confined"], 2, "--confined goes with --system"),
        (["--user", "--colour"], 2, "unknown option --colour"),
        (["--user", "--program"], 2, "takes a value"),
        (["--user", "--program", "ops-agent"], 3, "not absolute"),
        (["--user", "--program", "/opt/x|e id|"], 3, "letters, digits"),
        (["--user", "--program", "/opt/%n"], 3, "letters, digits"),
        (["--user", "--program", "/nonexistent/ops-agent"], 3, "is not there"),
    ],
)
def test_the_script_says_what_it_does_not_take(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["/bin/sh", INSTALL, *words], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_would_mean_something_in_a_unit_is_refused(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path) + "/x\n[Service]"}
    done = subprocess.run(
        ["/bin/sh", INSTALL, "--user", "--dry-run", "--program", sys.executable],
        env=env,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 3
    assert "letters, digits" in done.stderr
