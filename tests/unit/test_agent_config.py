"""config.toml: what is wrong with it is said with its line, before anything is served."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.config import load_config, parse_config
from agent.errors import BadConfig

GOOD = """\
[agent]
listen = ["unix:/run/ops-agent/agent.sock"]
state_dir = "/var/lib/ops-agent"

[limits]
max_runs_per_principal = 8

[[grants]]
principal = "unix:daemon"
capabilities = ["exec:/usr/bin/uptime", "fs.read:/var/log/**"]
run_as = ["deploy"]

[[grants]]
principal = "unix:root"
capabilities = ["facts:*"]
"""


def test_a_good_file_is_taken_as_it_is() -> None:
    config = parse_config(GOOD)
    assert config.limits.max_runs_per_principal == 8
    assert [grant.principal for grant in config.grants] == ["unix:daemon", "unix:root"]
    assert config.grants[0].capability_set.describe() == ["exec:/usr/bin/uptime", "fs.read:/var/log/**"]


@pytest.mark.parametrize(
    ("old", "new", "line", "says", "hint"),
    [
        ("max_runs_per_principal", "max_runs_per_principle", 6, "unknown key 'max_runs_per_principle'", "did you mean"),
        ("run_as", "runas", 11, "unknown key 'runas'", 'did you mean "run_as"'),
        ("[limits]", "[limit]", 5, "unknown key 'limit'", 'did you mean "limits"'),
        ("= 8", '= "8"', 6, "limits.max_runs_per_principal", None),
        ("[limits]", 'socket_mode = "660"\n[limits]', 5, "agent.socket_mode", 'like "0660"'),
        ("= 8", "= 0", 6, "limits.max_runs_per_principal", None),
        ("exec:/usr/bin/uptime", "exce:/usr/bin/uptime", 10, "unknown verb 'exce'", 'did you mean "exec"'),
        ("facts:*", "facts:**", 15, "stray wildcard", None),
        ('"unix:root"', '"unix:no-such-user-here"', 14, "there is no such user", "create the user"),
        ('"unix:root"', '"unix:nobody"', 14, "no identity", "a user of its own"),
        ('"unix:root"', '"tailnet:a@b.c"', 14, "no listener proves tailnet", None),
        ('"unix:root"', '"bottle:*"', 14, "no listener proves bottle", None),
        ('"unix:root"', '"root"', 14, "is not a principal", "unix:deploy"),
        ("unix:/run/ops-agent/agent.sock", "0.0.0.0:7227", 2, "proves nobody's identity", "unix:/path"),
        ("unix:/run/ops-agent/agent.sock", "tcp:203.0.113.9:7227", 2, "proves nobody's identity", None),
        ("unix:/run/ops-agent/agent.sock", "tcp:127.0.0.1:7227", 2, "proves nobody's identity", None),
        ("unix:/run/ops-agent/agent.sock", "tailnet:0", 2, "names no port", "tailnet:7227"),
        ("unix:/run/ops-agent/agent.sock", "tailnet:*:7227", 2, "names no port", "tailnet:7227"),
        ("unix:/run/ops-agent/agent.sock", "tailnet:100.64.0.3:7227", 2, "names no port", "tailnet:7227"),
        (
            '["unix:/run/ops-agent/agent.sock"]',
            '["unix:/run/ops-agent/agent.sock", "unix:/run/ops-agent/agent.sock"]',
            2,
            "an address stands twice",
            "name each once",
        ),
        ("unix:/run/ops-agent/agent.sock", "unix:agent.sock", 2, "not an absolute", None),
        ("unix:/run/ops-agent/agent.sock", "unix:/run/../agent.sock", 2, "not an absolute, normalised", None),
        ('"/var/lib/ops-agent"', '"state"', 3, "not an absolute", None),
        ('state_dir = "/var/lib/ops-agent"\n', "", 1, "agent.state_dir is missing", None),
        ("[limits]", "[limits", 5, "", "TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, line: int, says: str, hint: str | None) -> None:
    assert old in GOOD
    with pytest.raises(BadConfig) as bad:
        parse_config(GOOD.replace(old, new, 1), "c.toml")
    assert bad.value.message.startswith(f"c.toml:{line}: ")
    assert says in bad.value.message
    assert bad.value.hint
    assert (hint or "") in bad.value.hint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[limits]", "x = " + "[" * 100_000 + "]" * 100_000 + "\n[limits]", "nested too deeply"),
        ("[limits]", "[limits]\nmax_runs_per_principal = " + "9" * 5000, "too long"),
        ("[limits]", f"[limits]\nmax_output_bytes = {1 << 70}", "limits.max_output_bytes: input should be less"),
        ("[limits]", f"[limits]\nkeep_runs_bytes = {1 << 63}", "limits.keep_runs_bytes: input should be less"),
        ("[[grants]]", f"[[grants]]\nmax_output_bytes = {1 << 63}", "max_output_bytes: input should be less"),
    ],
)
def test_what_no_reader_of_toml_takes_is_said_too(old: str, new: str, says: str) -> None:
    """An output limit of 2^70 was taken, and from then on whoami failed."""
    text = GOOD.split("[limits]")[0] + "[limits]\n" + "[[grants]]" + GOOD.split("[[grants]]", 1)[1]
    with pytest.raises(BadConfig, match=says):
        parse_config(text.replace(old, new, 1), "c.toml")


def test_of_a_huge_file_no_more_is_read_than_a_config_may_have(tmp_path: Path) -> None:
    """It is refused by its size alone, whatever memory there is."""
    file = tmp_path / "c.toml"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    for each in (file, Path("/dev/zero")):
        with pytest.raises(BadConfig, match="over 1048576 bytes"):
            load_config(each)


def test_check_config_says_ok_or_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text(GOOD)
    assert main(["check-config", str(file)]) == 0
    assert "ok, 2 grants" in capsys.readouterr().out
    file.write_text(GOOD.replace("run_as", "runas"))
    assert main(["check-config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ops-agent: {file}:11: unknown key 'runas'")
    assert "hint:" in said
    assert main(["check-config", str(tmp_path / "none.toml")]) == 2


def test_the_example_is_a_good_config_but_for_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.principal.uid_here", lambda name: 1234)
    config = load_config(Path(__file__).parents[2] / "examples" / "ops-agent.toml")
    assert config.grants


PERSON = '\n[consent]\nusers = ["unix:daemon"]\ntimeout_s = 5\n'


def test_a_person_to_ask_and_what_is_kept_are_taken() -> None:
    asking = GOOD.replace('capabilities = ["facts:*"]', 'capabilities = ["facts:*"]\nconsent = "ask"')
    config = parse_config(asking + PERSON + "[recordings]\nkeep = 3\ninput = true\n")
    assert config.grants[1].consent == "ask"
    assert (config.consent.users, config.consent.timeout_s) == (["unix:daemon"], 5)
    assert (config.recordings.keep, config.recordings.input) == (3, True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("", "16: nobody but this principal itself could be asked"),
        ('\n[consent]\nusers = ["unix:root"]\n', "16: nobody but this principal itself could be asked"),
        ('\n[consent]\nusers = ["unix:no-such-user-here"]\n', "19: there is no such user"),
        ('\n[consent]\nusers = ["tailnet:a@b.c"]\n', "no listener proves tailnet"),
        ('\n[consent]\nuser = ["unix:daemon"]\n', "19: unknown key 'user'"),
        (PERSON.replace("5", "0"), "20: consent.timeout_s"),
    ],
)
def test_a_grant_under_which_nobody_could_be_asked_is_refused(more: str, says: str) -> None:
    asking = GOOD.replace('capabilities = ["facts:*"]', 'capabilities = ["facts:*"]\nconsent = "ask"')
    with pytest.raises(BadConfig) as caught:
        parse_config(asking + more)
    assert says.rpartition(": ")[2] in caught.value.message
    if says[0].isdigit():
        assert f":{says.partition(':')[0]}:" in caught.value.message


def test_a_check_that_nobody_waits_for_any_more_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(GOOD)
    file.chmod(0o600)
    program = f"from agent.config_child import main; main({str(file)!r})"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=writing, stderr=subprocess.PIPE,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
