"""A host is who known_hosts says it is, or there is no login; the error shows both fingerprints."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AuditLog, CapabilitySet, Exec, HostKeyRejected, connect
from opsexec.host_executor import HostExecutor
from tests.integration.conftest import require_root, require_sshd
from tests.parts.ssh_agent import make_key
from tests.parts.sshd import Endpoint, Sshd

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",))


def executor(endpoint: Endpoint, audit: AuditLog, known: Path | None = None, **options: object) -> HostExecutor:
    return connect(
        endpoint.url,
        capabilities=CapabilitySet.everything(),
        audit=audit,
        identity_files=[str(endpoint.identity)],
        known_hosts=str(known or endpoint.known_hosts),
        config_files=(),
        **options,  # type: ignore[arg-type]  # passed on as they are
    )


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A known_hosts file of the test's own, not there yet."""
    return tmp_path / "known_hosts"


@pytest.fixture
def own_sshd() -> Iterator[Sshd]:
    """A server whose key the test may change."""
    require_sshd()
    with Sshd() as server:
        yield server


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", *words], check=True, capture_output=True)


def public(server: Sshd) -> str:
    return " ".join(server.host_key.with_suffix(".pub").read_text().split()[:2])


async def refused(endpoint: Endpoint, audit: AuditLog, known: Path, **options: object) -> HostKeyRejected:
    """The error that a first step gets; no login was made for it."""
    async with executor(endpoint, audit, known, **options) as ex:
        with pytest.raises(HostKeyRejected) as caught:
            await ex.run(TRUE)
    assert caught.value.host == f"{endpoint.user}@{endpoint.address}:{endpoint.port}"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("content", [None, "", "# nothing\n\n", "[127.0.0.9]:1 ssh-ed25519 AAAA\n"])
async def test_an_unknown_host_is_refused_with_its_fingerprint(
    sshd: Sshd, audit: AuditLog, known: Path, content: str | None
) -> None:
    if content is not None:
        known.write_text(content.replace("ssh-ed25519 AAAA", public(sshd)))
    logins = sshd.logins()
    error = await refused(sshd.endpoint(), audit, known)
    assert error.expected is None
    assert error.got == sshd.host_fingerprint()
    assert sshd.host_fingerprint() in error.message
    assert sshd.logins() == logins


async def test_a_changed_key_is_refused_with_both_fingerprints(own_sshd: Sshd, audit: AuditLog) -> None:
    before, known = own_sshd.host_fingerprint(), own_sshd.known_hosts.read_text()
    endpoint = own_sshd.endpoint()
    async with executor(endpoint, audit) as ex:
        assert (await ex.run(TRUE)).ok
    own_sshd.restart(new_host_key=True)
    for policy in ("strict", "accept-new"):
        error = await refused(endpoint, audit, endpoint.known_hosts, host_keys=policy)
        assert (error.expected, error.got) == (before, own_sshd.host_fingerprint())
        assert before in error.message
        assert own_sshd.host_fingerprint() in error.message
    assert endpoint.known_hosts.read_text() == known  # accept-new wrote nothing over it


async def test_a_key_of_another_kind_is_a_changed_key(
    own_sshd: Sshd, audit: AuditLog, known: Path, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other", kind="ecdsa")
    words = other.with_suffix(".pub").read_text().split()
    known.write_text(f"[{own_sshd.listen[0]}]:{own_sshd.port} {words[0]} {words[1]}\n")
    for policy in ("strict", "accept-new"):
        error = await refused(own_sshd.endpoint(), audit, known, host_keys=policy)
        assert error.expected is not None
        assert "changed" in error.message


async def test_accept_new_trusts_the_first_key_and_remembers_it(own_sshd: Sshd, audit: AuditLog, known: Path) -> None:
    endpoint = own_sshd.endpoint()
    async with executor(endpoint, audit, known, host_keys="accept-new") as ex:
        assert (await ex.run(TRUE)).ok
    assert known.stat().st_mode & 0o777 == 0o600
    assert known.read_text() == f"[{endpoint.address}]:{endpoint.port} {public(own_sshd)}\n"
    async with executor(endpoint, audit, known) as ex:
        assert (await ex.run(TRUE)).ok
    async with executor(endpoint, audit, known, host_keys="accept-new") as ex:
        assert (await ex.run(TRUE)).ok
    assert known.read_text().count("\n") == 1


async def test_accept_new_keeps_a_last_line_that_has_no_newline(own_sshd: Sshd, audit: AuditLog, known: Path) -> None:
    endpoint = own_sshd.endpoint()
    known.write_text(f"other.example {public(own_sshd)}")
    async with executor(endpoint, audit, known, host_keys="accept-new") as ex:
        assert (await ex.run(TRUE)).ok
    assert known.read_text() == (
        f"other.example {public(own_sshd)}\n[{endpoint.address}]:{endpoint.port} {public(own_sshd)}\n"
    )


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
async def test_a_revoked_key_is_refused_whatever_the_policy(
    sshd: Sshd, audit: AuditLog, known: Path, policy: str
) -> None:
    known.write_text(f"@revoked * {public(sshd)}\n")
    error = await refused(sshd.endpoint(), audit, known, host_keys=policy)
    assert "revoked" in error.message
    known.write_text(f"@revoked * {public(sshd)}\n" + "".join(f"{line}\n" for line in sshd.known_hosts_lines()))
    error = await refused(sshd.endpoint(), audit, known, host_keys=policy)
    assert "revoked" in error.message


async def test_hashed_names_are_known(sshd: Sshd, audit: AuditLog, known: Path) -> None:
    known.write_text("".join(f"{line}\n" for line in sshd.known_hosts_lines()))
    keygen("-H", "-f", str(known))
    assert sshd.listen[0] not in known.read_text()
    async with executor(sshd.endpoint(), audit, known) as ex:
        assert (await ex.run(TRUE)).ok


async def test_patterns_and_several_files_are_known(sshd: Sshd, audit: AuditLog, tmp_path: Path) -> None:
    empty, second = tmp_path / "absent", tmp_path / "second"
    second.write_text(f"*.example,[127.0.0.*]:{sshd.port},!other {public(sshd)}\n")
    endpoint = sshd.endpoint()
    async with connect(
        endpoint.url,
        capabilities=CapabilitySet.everything(),
        audit=audit,
        identity_files=[str(endpoint.identity)],
        known_hosts=[str(empty), str(second)],
        config_files=(),
    ) as ex:
        assert (await ex.run(TRUE)).ok


async def test_a_certificate_authority_vouches_for_a_host(audit: AuditLog, known: Path, tmp_path: Path) -> None:
    require_sshd()
    authority = make_key(tmp_path / "authority")
    key = make_key(tmp_path / "certified")
    keygen("-q", "-s", str(authority), "-I", "host", "-h", "-n", "127.0.0.1", f"{key}.pub")
    with Sshd(extra=[f"HostKey {key}", f"HostCertificate {key}-cert.pub"]) as server:
        words = authority.with_suffix(".pub").read_text().split()
        known.write_text(f"@cert-authority [127.0.0.1]:{server.port} {words[0]} {words[1]}\n")
        async with executor(server.endpoint(), audit, known) as ex:
            assert (await ex.run(TRUE)).ok
        # A host that is known by its certificate isn't new when it comes with a bare key.
    with Sshd() as server:
        known.write_text(f"@cert-authority [127.0.0.1]:{server.port} {words[0]} {words[1]}\n")
        await refused(server.endpoint(), audit, known, host_keys="accept-new")


async def test_a_file_that_is_none_is_named(sshd: Sshd, audit: AuditLog, known: Path) -> None:
    known.mkdir()
    error = await refused(sshd.endpoint(), audit, known, host_keys="accept-new")
    assert str(known) in error.message


async def test_one_broken_line_does_not_hide_the_others(sshd: Sshd, audit: AuditLog, known: Path) -> None:
    """As ssh(1) has it: a line that can't be read is passed over."""
    known.write_text("broken\n" + "".join(f"{line}\n" for line in sshd.known_hosts_lines()))
    async with executor(sshd.endpoint(), audit, known) as ex:
        assert (await ex.run(TRUE)).ok


async def test_a_file_that_may_revoke_and_can_not_be_understood_leaves_nothing_known(
    sshd: Sshd, audit: AuditLog, tmp_path: Path
) -> None:
    good, broken = tmp_path / "good", tmp_path / "broken"
    good.write_text("".join(f"{line}\n" for line in sshd.known_hosts_lines()))
    broken.write_text("@revoked *\n")
    for policy in ("strict", "accept-new"):
        async with connect(
            sshd.endpoint().url,
            capabilities=CapabilitySet.everything(),
            audit=audit,
            identity_files=[str(sshd.endpoint().identity)],
            known_hosts=[str(good), str(broken)],
            config_files=(),
            host_keys=policy,
        ) as ex:
            with pytest.raises(HostKeyRejected, match=f"can't be read .{broken}"):
                await ex.run(TRUE)
    assert good.read_text().count("\n") == len(sshd.known_hosts_lines())


async def test_accept_new_that_can_not_remember_says_so(sshd: Sshd, audit: AuditLog) -> None:
    """Trusting without a memory would be trusting every time."""
    require_root()
    error = await refused(sshd.endpoint(), audit, Path("/proc/opsexec/known_hosts"), host_keys="accept-new")
    assert "/proc/opsexec/known_hosts" in f"{error.message} {error.hint}"
