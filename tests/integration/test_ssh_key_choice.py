"""Which keys a login offers: those that are named and no others, whatever an agent holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsexec.errors import UsageError
from opsexec.hosts.ssh_keys import EncryptedKey, encrypted_among, key_arguments
from tests.parts.ssh_agent import make_key

NO_AGENT = {"agent_path": None}


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(make_key(tmp_path / "plain"))


@pytest.fixture
def locked(plain: str) -> str:
    return str(make_key(Path(plain).with_name("locked"), passphrase="long enough"))


def test_an_agent_is_asked_only_where_it_may_be() -> None:
    assert key_arguments(None, None, use_agent=True) == {}
    assert key_arguments(None, None, use_agent=False) == NO_AGENT


def test_where_files_are_named_the_agents_keys_are_not_offered(plain: str) -> None:
    for use_agent in (True, False):
        told = key_arguments([plain], None, use_agent=use_agent)
        assert [pair.get_comment() for pair in told.pop("client_keys")] == ["plain"]
        assert told == NO_AGENT
        assert key_arguments([], [plain], use_agent=use_agent) == {"client_keys": None, **NO_AGENT}


def test_an_encrypted_file_stands_for_the_agents_key_of_that_name_alone(plain: str, locked: str) -> None:
    told = key_arguments([plain, locked], None, use_agent=True)
    own, held = told.pop("client_keys")
    assert (own.get_comment(), held) == ("plain", locked)
    assert told == {"agent_identities": [locked], "ignore_encrypted": True}


def test_an_encrypted_file_without_an_agent_is_refused(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncryptedKey, match="is encrypted"):
        key_arguments([locked], None, use_agent=False)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(EncryptedKey, match="is encrypted"):
        key_arguments([locked], None, use_agent=True)


def test_a_named_file_that_is_no_key_is_refused_and_one_of_the_configuration_is_passed_over(plain: str) -> None:
    none = plain + ".none"
    with pytest.raises(UsageError, match="can't be used"):
        key_arguments([none], None, use_agent=True)
    told = {"client_keys": [plain], "ignore_encrypted": True}
    assert key_arguments(None, [plain, none], use_agent=True) == told
    assert key_arguments(None, [plain, none], use_agent=False) == told | NO_AGENT
    assert key_arguments(None, [plain], use_agent=True) == {}


def test_of_what_was_passed_over_the_encrypted_ones_are_named(plain: str, locked: str) -> None:
    Path(plain).with_name("text").write_text("no key")
    files = [plain, locked, plain + ".none", str(Path(plain).with_name("text"))]
    assert encrypted_among(files, None) == [locked]
    assert encrypted_among(None, files) == [locked]
    assert encrypted_among([plain], [locked]) == []
    assert encrypted_among(None, None) == []
    usual = Path(plain).with_name(".ssh")
    usual.mkdir()
    Path(locked).rename(usual / "id_ed25519")
    assert encrypted_among(None, None) == ["~/.ssh/id_ed25519"]
