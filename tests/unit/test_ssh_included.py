"""An ssh configuration includes only files that nobody else may write: what they name is run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsexec.errors import UsageError
from opsexec.hosts.ssh_login import SshAddress, SshOptions, known_as


def read(config: Path | None) -> str:
    """Have the configuration read for web1; return the host it names."""
    options = SshOptions(config_files=None if config is None else (str(config),))
    return known_as(SshAddress("web1"), options, "web1").host


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
@pytest.mark.parametrize("before", ["", "Match host other\n  ", "Host other\n  "])
def test_an_included_file_that_others_may_write_is_refused_and_runs_nothing(
    tmp_path: Path, mode: int, before: str
) -> None:
    ran = tmp_path / "ran"
    theirs = written(tmp_path / "theirs", f'Match exec "touch {ran}"\n  HostName evil.test\n', mode)
    config = written(tmp_path / "config", f"{before}Include {theirs}\n")

    with pytest.raises(UsageError, match="theirs may be written by others"):
        read(config)
    assert not ran.exists()


def test_a_file_included_by_an_included_one_is_looked_at_too(tmp_path: Path) -> None:
    theirs = written(tmp_path / "theirs", "HostName evil.test\n", 0o666)
    between = written(tmp_path / "between", f"include={tmp_path}/their*\n")
    assert theirs.exists()

    with pytest.raises(UsageError, match="theirs may be written by others"):
        read(written(tmp_path / "config", f"Include {between}\n"))


def test_the_operators_own_configuration_is_held_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    theirs = written(ssh / "theirs", "HostName evil.test\n", 0o666)
    written(ssh / "config", "Include theirs\n")

    with pytest.raises(UsageError, match="theirs may be written by others"):
        read(None)
    theirs.chmod(0o644)
    assert read(None) == "evil.test"


def test_files_of_ones_own_are_included_as_before(tmp_path: Path) -> None:
    one = written(tmp_path / "one", "Host web1\n  HostName one.test\n", 0o644)
    assert read(written(tmp_path / "config", f"Include {one} {tmp_path}/none*\nHost *\n  Port 2222\n")) == "one.test"


def test_a_file_that_includes_itself_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config"
    with pytest.raises(UsageError, match="included over 16 deep"):
        read(written(config, f"Include {config}\n"))
