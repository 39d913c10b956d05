"""Which keys are offered and which known hosts are read: as ssh(1) has it, and what is passed over is named."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio import to_thread

from opsexec import AuditLog, CapabilitySet, Exec, HostKeyRejected, HostUnreachable, connect
from opsexec.errors import UsageError
from opsexec.host_executor import HostExecutor
from tests.integration.conftest import require_sshd
from tests.parts.ssh_agent import make_key, ssh_agent
from tests.parts.sshd import Sshd

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",))
PASSPHRASE = "long enough"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys, and no agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


@pytest.fixture
def locked(home: Path) -> Path:
    """An encrypted key of the usual name."""
    return make_key(home / ".ssh" / "id_ed25519", passphrase=PASSPHRASE)


@pytest.fixture
def server(locked: Path) -> Iterator[Sshd]:
    """A server that the encrypted key logs in to."""
    require_sshd()
    with Sshd(authorized_keys=[locked.with_suffix(".pub").read_text().strip()]) as running:
        yield running


def executor(server: Sshd, audit: AuditLog, **options: object) -> HostExecutor:
    standing: dict[str, object] = {"known_hosts": str(server.known_hosts), "config_files": ()}
    return connect(
        server.url(),
        capabilities=CapabilitySet.everything(),
        audit=audit,
        **{**standing, **options},  # type: ignore[arg-type]  # passed on as they are
    )


@contextmanager
def configured(home: Path, *lines: str) -> Iterator[dict[str, object]]:
    """The options that have a login read these lines of configuration alone."""
    file = home / "config"
    file.write_text("\n".join(("Host *", *(f"  {line}" for line in lines), "")))
    yield {"config_files": [str(file)], "known_hosts": None}


async def refusal(server: Sshd, audit: AuditLog, **options: object) -> HostUnreachable:
    async with executor(server, audit, **options) as ex:
        with pytest.raises(HostUnreachable) as caught:
            await ex.run(TRUE)
    return caught.value


async def test_an_encrypted_key_that_was_passed_over_is_named(server: Sshd, audit: AuditLog, home: Path) -> None:
    error = await refusal(server, audit)
    assert error.hint == "an encrypted key is offered only from ssh-agent: ssh-add ~/.ssh/id_ed25519"
    elsewhere = make_key(home / "deploy", passphrase=PASSPHRASE)
    with configured(home, f"IdentityFile {elsewhere}", f"UserKnownHostsFile {server.known_hosts}") as options:
        assert f"ssh-add {elsewhere}" in str((await refusal(server, audit, **options)).hint)


async def test_a_named_key_that_is_encrypted_is_the_agents_and_no_other_is_offered(
    server: Sshd, audit: AuditLog, locked: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More keys than a server hears out (MaxAuthTries 6) stand before it in the agent."""
    others = [make_key(home / f"other{n}") for n in range(7)]
    with ssh_agent(*others, locked, passphrase=PASSPHRASE) as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(running))
        async with executor(server, audit, identity_files=[str(locked)]) as ex:
            assert (await ex.run(TRUE)).ok
        error = await refusal(server, audit)
        assert "Too many authentication failures" in error.message
        assert "IdentitiesOnly" in str(error.hint)


async def test_a_named_key_that_the_agent_lacks_is_refused_with_what_to_do(
    server: Sshd, audit: AuditLog, locked: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ssh_agent(make_key(home / "other")) as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(running))
        error = await refusal(server, audit, identity_files=[str(locked)])
        assert f"ssh-add {locked}" in str(error.hint)


async def test_no_identity_file_is_none_not_the_usual_ones(server: Sshd, audit: AuditLog, home: Path) -> None:
    usual = home / ".ssh" / "id_ed25519"
    usual.write_bytes(server.client_key.read_bytes())
    usual.with_suffix(".pub").write_bytes(server.client_key.with_suffix(".pub").read_bytes())
    async with executor(server, audit) as ex:
        assert (await ex.run(TRUE)).ok
    assert "login refused" in (await refusal(server, audit, identity_files=[])).message


async def test_the_user_that_was_refused_is_the_configurations(server: Sshd, audit: AuditLog, home: Path) -> None:
    with configured(home, "User no-such-user", f"UserKnownHostsFile {server.known_hosts}") as options:
        address = f"ssh://{server.listen[0]}:{server.port}"
        async with connect(
            address,
            capabilities=CapabilitySet.everything(),
            audit=audit,
            **options,  # type: ignore[arg-type]  # passed on as they are
        ) as ex:
            with pytest.raises(HostUnreachable, match="login refused for no-such-user: "):
                await ex.run(TRUE)


async def test_the_machines_known_hosts_are_the_configurations_and_never_written(
    server: Sshd, audit: AuditLog, home: Path
) -> None:
    """`none` leaves no file of one's own: a key to remember must not become what the whole machine trusts."""
    everyones = home / "everyones"
    key = {"identity_files": [str(server.client_key)]}
    with configured(home, "UserKnownHostsFile none", f"GlobalKnownHostsFile {everyones}") as options:
        async with executor(server, audit, **options, **key, host_keys="accept-new") as ex:
            with pytest.raises(HostKeyRejected, match="can't be remembered"):
                await ex.run(TRUE)
        assert not everyones.exists()
        everyones.write_bytes(server.known_hosts.read_bytes())
        async with executor(server, audit, **options, **key) as ex:
            assert (await ex.run(TRUE)).ok


async def test_a_key_is_remembered_where_and_as_ssh_itself_would_look_for_it(
    server: Sshd, audit: AuditLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of the file's name are filled in, and HostKeyAlias stands without a port: ssh(1) finds the line."""
    monkeypatch.setenv("KEPT", "kept")
    lines = ("HostKeyAlias web1", "UserKnownHostsFile %d/known_%k_${KEPT}", "GlobalKnownHostsFile none")
    key = {"identity_files": [str(server.client_key)]}
    with configured(home, *lines) as options:
        async with executor(server, audit, **options, **key, host_keys="accept-new") as ex:
            assert (await ex.run(TRUE)).ok
        kept = (home / "known_web1_kept").read_text()
        assert kept.startswith("web1 ssh-ed25519 ")
        async with executor(server, audit, **options, **key) as ex:
            assert (await ex.run(TRUE)).ok
    told = ["-F", "none", "-p", str(server.port), "-i", str(server.client_key), "-o", "BatchMode=yes"]
    told += ["-o", "HostKeyAlias=web1", "-o", f"UserKnownHostsFile={home}/known_web1_kept", "-o", "IdentitiesOnly=yes"]
    done = await to_thread.run_sync(
        lambda: subprocess.run(["ssh", *told, server.listen[0], "true"], capture_output=True, timeout=20)
    )
    assert done.returncode == 0, done.stderr


async def test_a_token_that_is_not_filled_in_is_refused_not_taken_for_a_name(
    server: Sshd, audit: AuditLog, home: Path
) -> None:
    with configured(home, "UserKnownHostsFile ~/known_%C") as options:
        async with executor(server, audit, **options) as ex:
            with pytest.raises(UsageError, match="%C in UserKnownHostsFile"):
                await ex.run(TRUE)


async def test_a_comment_behind_a_value_is_told_as_what_it_is(server: Sshd, audit: AuditLog, home: Path) -> None:
    """ssh(1) takes it, so a hint to ask ssh would find nothing."""
    with configured(home, "User root # not deploy") as options:
        async with executor(server, audit, **options) as ex:
            with pytest.raises(UsageError, match="# not deploy") as caught:
                await ex.run(TRUE)
    assert "line of its own" in str(caught.value.hint)
