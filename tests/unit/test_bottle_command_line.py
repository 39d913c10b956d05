"""The command line of `bottle` itself: what is wrong is one sentence and a hint, each command shows examples."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottle.arguments import EXAMPLES, parser
from bottle.cli import COMMANDS, main
from bottle.starting import resolve_option
from bottle.state import Metadata, State
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.told import is_sentence_and_hint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HomeRoot:
    root = HomeRoot(tmp_path / "home")
    root.bottle("dev", "egress:\n  routes:\n    - {host: open.test, path_allowlist: [/v1]}\n")
    root.agent("worker", "bottle: dev\n")
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(root.path))
    monkeypatch.chdir(tmp_path)
    return root


def commands(at: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in at._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield inner.prog.removeprefix("bottle "), inner
                yield from ((each, found) for each, found in commands(inner) if each != name)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["strat"], "did you mean `start`?"),
        ([], "a command is missing"),
        (["start"], "start: the following arguments are required: AGENT"),
        (["info", "worker", "--backend", "dcoker"], "did you mean `docker`?"),
        (["completion", "tcsh"], "one of: bash, zsh, fish"),
        (["list", "--", "x"], "words after -- are for start and exec only"),
        (["start", "worker", "--cw"], "unknown option '--cw'\n  hint: did you mean `--cwd`?"),
        (["start", "worker", "--qqqqqq=1"], "unknown option '--qqqqqq'\n  hint: see `bottle start --help`"),
        (["info", "worker", "more"], "info: 'more' is one argument too many"),
        (["audit", "x", "--last", "many"], "'many' is no number"),
        (["start", "worker", "--json", "--tty", "--", "true"], "--json is for programs without a terminal, and --tty"),
        (["start", "worker", "--json", "--record", "x.cast", "--", "true"], "without a terminal, and --record"),
        (["exec", "worker-00000001", "--json", "--tty", "--", "true"], "without a terminal, and --tty is for one"),
        (["policy", "check", "worker", "open.test"], "is not a URL with a scheme and a host"),
        (["policy", "check", "worker", "https://open.test/v1", "get"], "hint: GET"),
        (["info", "wroker"], "did you mean 'worker'?"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=127.0.0.7:8²", "--", "x"], "is not HOST=ADDRESS:PORT"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=b.test:80", "--", "x"], "'b.test' is no IP address"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=127.0.0.300:80", "--", "x"], "is no IP address"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=[::1:80", "--", "x"], "is no IP address"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=[127.0.0.7]:80", "--", "x"], "is no IP address"),
        (["start", "worker", "--dry-run", "--resolve", "a.test=fe80::1%lo:80", "--", "x"], "is no IP address"),
        (["start", "worker", "--dry-run", "--resolve", "a b=127.0.0.7:80", "--", "x"], "'a b' is not a host name"),
        (["start", "worker", "--backend", "smolmachines", "--dry-run", "--", "true"], "hint: known: bwrap, docker"),
    ],
)
def test_what_is_wrong_is_a_sentence_and_a_hint(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert is_sentence_and_hint("bottle", said.err), said.err


def test_each_command_s_help_has_examples_that_its_parser_takes(capsys: pytest.CaptureFixture[str]) -> None:
    whole = parser()
    found = dict(commands(whole))
    assert set(found) == set(EXAMPLES) == {*COMMANDS, "policy check"}
    for name, inner in found.items():
        assert "examples:\n  bottle " in inner.format_help(), name
        for line in EXAMPLES[name]:
            own = line.partition(" | ")[0].partition(" > ")[0].partition(" -- ")[0].replace("'", "")
            if name != "reject":  # whose reason is several words
                whole.parse_args(own.split())
    with contextlib.suppress(SystemExit):
        main(["start", "--help"])
    assert "bottle start reviewer --cwd" in capsys.readouterr().out


def test_a_dry_run_is_one_object_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "worker", "--dry-run", "--json", "--", "true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert ["egress", "open.test [paths: /v1]"] in told["lines"]
    assert {"bundle", "agent"} <= {each["phase"] for each in told["steps"]}


def test_a_dry_run_shows_what_is_copied_and_refuses_what_a_start_refuses(
    home: HomeRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.agent("worker", "bottle: dev\nskills: [review]\n")
    dry = ["start", "worker", "--cwd", "--dry-run"]
    assert main([*dry, "--", "true"]) == 2
    assert "there is no skill 'review'" in capsys.readouterr().err
    skill = home.path / "skills" / "review"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("look")
    for each in (skill.parent, skill, skill / "SKILL.md", tmp_path / ".env"):
        each.touch()
        each.chmod(0o755 if each.is_dir() else 0o644)
    assert main([*dry, "--", "true"]) == 0
    told = capsys.readouterr().out
    assert f"skill         review from {skill} sha256:" in told
    assert "warning       the agent gets .env: settings that often hold secrets" in told
    assert main([*dry, "--json", "--", "true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"skill", "copied"} <= {label for label, _ in found["lines"]}
    copied = [each["step"] for each in found["steps"] if each["phase"] == "skills"]
    assert [(each["type"], each.get("src")) for each in copied] == [("make_dir", None), ("push", f"{skill}/")]
    assert main([*dry, "--upstream-ca", "nowhere.pem", "--", "true"]) == 2
    assert "--upstream-ca nowhere.pem: can't be read as PEM" in capsys.readouterr().err


def test_a_dry_run_for_another_host_asks_it_and_shows_its_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", "worker", "--dry-run", "--host-dir", "/x", "--", "true"]) == 2
    assert "are about --host" in capsys.readouterr().err
    there = tmp_path / "venv-egress"
    words = ["--host", "local:", "--host-dir", f"{tmp_path}/there", "--host-env", str(there)]
    assert main(["start", "worker", "--dry-run", *words, "--", "true"]) == 3
    assert f"no environment for the egress gate at {there}" in capsys.readouterr().err
    there.mkdir()
    (there / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert main(["start", "worker", "--dry-run", *words, "--", "true"]) == 0
    told = capsys.readouterr().out
    assert f"host          local: ({tmp_path}/there/worker-" in told
    assert f'"path": "{tmp_path}/there/worker-' in told
    assert f'"argv": ["{there}/bin/python"' in told
    assert str(tmp_path / "home" / "state") not in told
    assert not (tmp_path / "there").exists()


def test_where_egress_finds_a_host_is_an_address_and_a_port() -> None:
    assert resolve_option(["A.test=127.0.0.7:8443", "b.test=[0:0::1]:80", "c.test=::1:443"]) == {
        "a.test": ("127.0.0.7", 8443),
        "b.test": ("::1", 80),
        "c.test": ("::1", 443),
    }


@pytest.mark.parametrize(
    ("words", "object_"),
    [
        (["list", "--json"], {"bottles": []}),
        (["proposals", "--json"], {"proposals": [], "unreadable": []}),
    ],
)
def test_nothing_is_an_empty_object_too(
    words: list[str], object_: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == object_


def test_a_repository_s_file_names_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents = tmp_path / ".bot-bottle" / "agents"
    agents.mkdir(parents=True)
    (agents / "\x1b]0;anything\x07.md").write_text("x")
    assert main(["info", "worker"]) == 0
    said = capsys.readouterr().err
    assert "\\x1b]0;anything\\x07.md: left out" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_an_empty_list_says_so_to_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "bottle: no bottle runs; --all shows stopped ones\n")


def kept_bottle(home: HomeRoot, identity: str) -> Path:
    state = State(home.path)
    state.make(Metadata(identity, "worker", str(home.path), False, 1.0, "bwrap", phase="stopped"))
    return state.directory(identity)


def test_the_log_of_a_daemon_that_there_is_none_of_is_no_empty_log(
    home: HomeRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    log = kept_bottle(home, "worker-00000001") / "bundle.log"
    log.write_text("egress | one\ninit | two\negress | three | four\n")
    assert main(["logs", "worker-00000001", "egress"]) == 0
    assert capsys.readouterr().out == "egress | one\negress | three | four\n"
    assert main(["logs", "worker-00000001", "egress", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"source": "egress", "text": "one"}, {"source": "egress", "text": "three | four"}]
    assert main(["logs", "worker-00000001", "egres"]) == 2
    assert "hint: said: egress, init" in capsys.readouterr().err


def test_a_running_bottle_is_not_shown_asked_about_and_then_refused(
    home: HomeRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_bottle(home, "worker-00000002")
    with State(home.path).held("worker-00000002"):
        assert main(["resume", "worker-00000002"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bottle: bottle worker-00000002 is running already\n")


def test_info_claims_no_command_that_nobody_gave(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "worker"]) == 0
    assert "command       what follows --\n" in capsys.readouterr().out
