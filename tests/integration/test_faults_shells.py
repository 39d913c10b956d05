"""Whatever greets a login - banners, talkative profiles, odd shells, none - a step works or says what is missing."""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AuditLog, Exec, HostUnreachable, OpsError, Shell, Tty
from opsexec.errors import HostUnsuitable
from tests.conftest import require
from tests.integration.conftest import require_root, require_sshd
from tests.parts.bare_host import ENOUGH, bare_login, can_unshare
from tests.parts.sshd import Sshd
from tests.parts.targets import Target, over_ssh
from tests.parts.unix_user import unix_user

pytestmark = pytest.mark.anyio
NOISE = "echo 'Welcome! ${HOME} opsexec-session-'; printf '\\377\\000no newline'; echo 'mail for you' >&2\n"
PROFILES = (".bashrc", ".bash_profile", ".profile", ".zshenv", ".zshrc", ".cshrc", ".tcshrc", ".login")


async def works(target: Target) -> None:
    """Programs, bytes, exit codes, trees and terminals, as anywhere else."""
    async with target.connect() as ex:
        output = await ex.run_streaming(Shell(action="t", script="printf 'out\\0'; printf err >&2; exit 3"))
        assert (output.stdout, output.stderr, output.exit_code) == (b"out\0", b"err", 3)
        words = ("a b", "$HOME", "'", '"', "!x", "\\", "*", "\n")
        output = await ex.run(Exec(argv=("printf", "%s\\0", *words)))
        assert output.stdout == "".join(f"{word}\0" for word in words).encode()
        terminal = await ex.open_tty(Tty(argv=("/bin/sh", "-c", "test -t 0 && echo tty")))
        said = b""
        while block := await terminal.read():
            said += block
        assert said == b"tty\r\n"
        await terminal.aclose()


@pytest.fixture(params=["/bin/sh", "/bin/bash", "/usr/bin/zsh", "/usr/bin/fish", "/bin/csh", "/bin/tcsh"])
def shell_user(request: pytest.FixtureRequest) -> Iterator[str]:
    """A user with that login shell, whose profile talks as much as the shell lets it."""
    require_root()
    require(Path(request.param), f"needs {request.param} (Debian packages zsh, fish, tcsh)")
    with unix_user(shell=request.param) as name:
        home = Path(pwd.getpwnam(name).pw_dir)
        for profile in PROFILES:
            (home / profile).write_text(NOISE if "csh" not in profile else "echo Welcome\n")
        fish = home / ".config" / "fish" / "config.fish"
        fish.parent.mkdir(parents=True)
        fish.write_text("echo Welcome; echo 'mail for you' >&2\n")
        yield name


async def test_any_login_shell_will_do(shell_user: str, sshd: Sshd, audit: AuditLog) -> None:
    await works(over_ssh("shell", sshd.endpoint(user=shell_user), audit))


async def test_a_banner_before_the_login_is_passed_over(audit: AuditLog, tmp_path: Path) -> None:
    require_sshd()
    banner = tmp_path / "banner"
    banner.write_text("*" * 2000 + "\nAuthorised use only\n" * 50)
    with Sshd(extra=[f"Banner {banner}", "PrintMotd yes"]) as server:
        await works(over_ssh("banner", server.endpoint(), audit))


async def failing(target: Target, *, times: int = 2, within_s: float = 10) -> OpsError:
    """The typed error of a first step; a second one finds the connection no worse."""
    async with target.connect() as ex:
        errors = []
        for _ in range(times):
            with pytest.raises((HostUnsuitable, HostUnreachable)) as caught:
                await asyncio.wait_for(ex.run(Exec(argv=("true",))), within_s)
            errors.append(caught.value)
        assert len({error.message for error in errors}) == 1
        assert errors[0].host == ex.host
        assert errors[0].hint
        return errors[0]


async def test_a_megabyte_of_noise_is_passed_over(audit: AuditLog) -> None:
    require_sshd()
    force = "sh -c 'yes noise | head -c 1000000; yes err | head -c 1000000 >&2; exec sh -c \"$SSH_ORIGINAL_COMMAND\"'"
    with Sshd(extra=[f"ForceCommand {force}"]) as server:
        await works(over_ssh("noisy", server.endpoint(), audit))


async def test_an_account_that_may_not_log_in_says_what_the_host_said(sshd: Sshd, audit: AuditLog) -> None:
    require_root()
    nologin = require("nologin", "needs nologin (Debian package login)")
    with unix_user(shell=nologin) as name:
        error = await failing(over_ssh("nologin", sshd.endpoint(user=name), audit))
    assert isinstance(error, HostUnsuitable)
    assert "not available" in error.message


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/bin/false", "1"),
        ("echo go away >&2; exit 4", "go away"),
        ("echo only on stdout; exit 4", "only on stdout"),
        ("kill -9 $$", "KILL"),
        ("exit 0", ""),
    ],
)
async def test_a_command_forced_on_the_login_says_what_it_said(audit: AuditLog, command: str, said: str) -> None:
    require_sshd()
    with Sshd(extra=[f"ForceCommand {command}"]) as server:
        error = await failing(over_ssh("forced", server.endpoint(), audit))
    assert isinstance(error, HostUnsuitable)
    assert said in error.message
    assert "None" not in error.message


async def test_a_host_without_python_says_so(audit: AuditLog) -> None:
    require_root()
    require(can_unshare(), "needs mount namespaces")
    with bare_login() as line, Sshd(extra=[line]) as server:
        error = await failing(over_ssh("bare", server.endpoint(), audit))
    assert isinstance(error, HostUnsuitable)
    assert "python3" in error.message
    assert "install" in (error.hint or "")


async def test_a_host_whose_python_does_not_start_says_so(audit: AuditLog) -> None:
    require_root()
    require(can_unshare(), "needs mount namespaces")
    broken = {"python3": "#!/bin/sh\necho 'python3: bad ELF interpreter' >&2\nexit 126\n"}
    with bare_login(added=broken) as line, Sshd(extra=[line]) as server:
        error = await failing(over_ssh("broken", server.endpoint(), audit))
    assert isinstance(error, HostUnsuitable)
    assert "bad ELF interpreter" in error.message


async def test_the_bare_host_is_only_bare(audit: AuditLog) -> None:
    """Otherwise the two tests above would pass whatever was missing: with python3 added the same host works."""
    require_root()
    require(can_unshare(), "needs mount namespaces")
    with (
        bare_login([*ENOUGH, "python3"]) as line,
        Sshd(extra=[line]) as server,
    ):
        await works(over_ssh("enough", server.endpoint(), audit))


async def test_a_login_that_never_gets_anywhere_ends_within_its_time(
    audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for ever, and one that talks without end; both at once, since each takes the whole time."""
    require_sshd()
    monkeypatch.setattr("opsexec.hosts.ssh.OPEN_S", 2.0)
    with Sshd(extra=["ForceCommand sleep 71.01"]) as waiting, Sshd(extra=["ForceCommand yes"]) as talking:
        tasks = [
            asyncio.create_task(failing(over_ssh("stuck", server.endpoint(), audit), times=1, within_s=25))
            for server in (waiting, talking)
        ]
        errors = await asyncio.gather(*tasks)
    assert [type(error) for error in errors] == [HostUnreachable] * 2
    assert all("no session within" in error.message for error in errors)


async def test_a_host_that_refuses_sessions_says_so(audit: AuditLog) -> None:
    require_sshd()
    with Sshd(max_sessions=0) as server:
        error = await failing(over_ssh("refusing", server.endpoint(), audit))
    assert "session" in error.message
