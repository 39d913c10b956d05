"""The example runbook over a real container engine: a check makes nothing, a second run changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_runs import ROOT, Cli, error_lines
from tests.parts.bottle_engine import BottleEngine
from tests.parts.container_engine import TINY, Ways

pytestmark = pytest.mark.timeout(180)

GREETER = ROOT / "examples/containers/greeter.yaml"
LABEL = "team.app=greeter"
STEPS = 9


@pytest.fixture
def cli(ways: Ways, tmp_path: Path) -> Iterator[Cli]:
    """A Cli whose one host, build1, is the engine's, behind sshd; what it made there goes."""
    end = ways.sshd.endpoint()
    (tmp_path / "inventory.toml").write_text(
        f'[hosts.build1]\nurl = "{end.url}"\ngroups = ["builders"]\nconfig_files = []\n'
        f'identity_files = ["{end.identity}"]\nknown_hosts = "{end.known_hosts}"\n'
    )
    yield Cli(tmp_path)
    engine = ways.engine
    for kind, remove in (("ps", ["rm", "-f"]), ("network", ["network", "rm"])):
        for name in engine.labelled(kind, LABEL):
            engine.docker(*remove, name)
    engine.docker("rmi", "-f", "greeter:live", check=False)


def run(cli: Cli, *words: str, book: str | Path = GREETER) -> dict[str, Any]:
    """The report of a run of the greeter: of each step its status, by its name."""
    done = cli.run("run", book, "--json", "--var", f"base={TINY}", *words)
    report: dict[str, Any] = json.loads(done.stdout)
    (host,) = report["hosts"].values()
    assert done.returncode == (0 if not report["totals"]["failed"] else 1), done.stderr
    assert "Traceback" not in done.stderr.decode()
    return {step["name"]: step for step in host["steps"]}


def statuses(steps: dict[str, Any]) -> dict[str, str]:
    return {name: step["status"] for name, step in steps.items()}


def there(engine: BottleEngine) -> tuple[list[str], list[str], str]:
    return engine.labelled("ps", LABEL), engine.labelled("network", LABEL), engine.docker("images", "-q", "greeter")


def test_a_check_foresees_all_of_a_first_run_and_makes_nothing(cli: Cli, ways: Ways) -> None:
    before = there(ways.engine)
    checked = statuses(run(cli, "--check"))
    assert there(ways.engine) == before == ([], [], "")
    assert checked == {
        "the image": "changed",
        "it starts at all": "changed",
        "its network": "changed",
        "what is live now": "ok",
        "end what runs another image": "skipped",
        "the container": "changed",
        "running": "changed",
        "ask it": "changed",
        "it greets": "skipped",
    }


def test_a_second_run_changes_nothing_and_another_image_replaces_the_container(cli: Cli, ways: Ways) -> None:
    first = statuses(run(cli))
    assert [first[name] for name in ("the image", "its network", "the container", "running")] == ["changed"] * 4
    assert first["it greets"] == "ok"
    containers, networks, image = there(ways.engine)
    assert (containers, networks, bool(image)) == (["greeter"], ["greeter"], True)
    (before,) = ways.engine.inspect("greeter")

    second = statuses(run(cli))
    assert set(second.values()) == {"ok", "skipped"}
    assert len(second) == STEPS
    checked = statuses(run(cli, "--check"))
    assert set(checked.values()) == {"ok", "skipped"}
    assert ways.engine.inspect("greeter")[0]["Id"] == before["Id"]

    foreseen = statuses(run(cli, "--check", "--var", "greeting=moin"))
    assert foreseen["the container"] == "changed"
    assert ways.engine.inspect("greeter")[0]["Id"] == before["Id"]
    third = statuses(run(cli, "--var", "greeting=moin"))
    assert third["end what runs another image"] == third["the container"] == third["it greets"].replace("ok", "changed")
    (after,) = ways.engine.inspect("greeter")
    assert after["Id"] != before["Id"]
    assert after["State"]["Running"]


def test_a_secret_of_a_runbook_is_in_the_container_and_nowhere_else(cli: Cli, ways: Ways) -> None:
    book = cli.home / "secret.yaml"
    book.write_text("""\
name: secret
hosts: all
vars: { token: { from_env: TOKEN }, base: x }
steps:
  - name: use it
    container.run:
      name: greeter
      image: opsexec-test/tiny:1
      labels: { team.app: greeter }
      env: { TOKEN: "${token}" }
      argv: [/bin/sh, -c, 'printf %s "$TOKEN" | sha256sum; printf %s "$TOKEN"; cat']
      stdin: "-${token}-"
""")
    done = cli.run("run", book, "--json", TOKEN="tok-77aa1")
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["hosts"]["build1"]["steps"]
    assert step["stdout_tail"].endswith("***-***-")
    kept = [file.read_bytes() for file in cli.home.rglob("*") if file.is_file()]
    assert not [each for each in kept if b"tok-77aa1" in each]
    assert there(ways.engine)[0] == []


def test_what_the_runbook_does_not_grant_itself_is_denied_before_the_engine_is_asked(cli: Cli) -> None:
    book = cli.home / "denied.yaml"
    text = GREETER.read_text().replace('"container.*:greeter"', '"container.run:greeter"')
    book.write_text(text)
    done = cli.run("run", book, "--json", "--var", f"base={TINY}")
    assert done.returncode != 0
    assert any("container.read:greeter" in line for line in error_lines(done))
    assert not cli.audit.exists() or b"container" not in cli.audit.read_bytes()


def test_a_host_s_agent_runs_it_too_and_judges_each_step_itself(cli: Cli, ways: Ways) -> None:
    (cli.home / "agent.toml").write_text(f'[hosts.build1]\nurl = "{ways.agent.url}"\ngroups = ["builders"]\n')
    done = statuses(run(cli, "-i", "agent.toml"))
    assert done["it greets"] == "ok"
    assert there(ways.engine)[0] == ["greeter"]
    assert set(statuses(run(cli, "-i", "agent.toml")).values()) == {"ok", "skipped"}
    asked = [each for each in ways.agent.records() if (each["step"] or {}).get("type") == "network_create"]
    assert [(each["decision"], each["step"]["name"]) for each in asked] == [("allow", "greeter")] * 2
