"""The demo's git upstream: a real sshd on loopback where one key may run git on a repository, and nothing else."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bottle.errors import HostUnready

ADDRESS = "127.0.0.1"
START_S = 10.0


@dataclass(frozen=True)
class Upstream:
    """`url`: as a manifest names it. `identity`: the private key file. `host_key`: for known_hosts."""

    url: str
    identity: Path
    host_key: str
    repository: Path

    async def refs(self) -> dict[str, str]:
        """Return ref -> commit, read from its own disk."""
        out = await _git(self.repository, "for-each-ref", "--format=%(refname) %(objectname)")
        return dict(line.split(" ") for line in out.splitlines())


@asynccontextmanager
async def upstream(directory: Path) -> AsyncIterator[Upstream]:
    """Make the repository, with one commit on main, and serve it for the time of the block. Raises HostUnready."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    shell = shutil.which("git-shell")
    if sshd is None or shell is None:
        raise HostUnready("the demo needs sshd and git-shell", hint="apt-get install openssh-server git")
    directory.mkdir(mode=0o755)
    host_key, identity = _key(directory / "host_key"), _key(directory / "identity")
    keys = directory / "authorized_keys"
    keys.write_text(f'restrict,command="{shell} -c \\"$SSH_ORIGINAL_COMMAND\\"" {identity}\n')
    repository = directory / "site.git"
    await _made(repository)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = _free_port()
    settings = {
        "Port": port, "ListenAddress": ADDRESS, "HostKey": directory / "host_key", "AuthorizedKeysFile": keys,
        "PidFile": "none", "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no", "PermitRootLogin": "prohibit-password",
    }  # fmt: skip
    config = directory / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    process = await asyncio.create_subprocess_exec(
        *(sshd, "-D", "-e", "-f", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        try:
            async with asyncio.timeout(START_S):
                while b"Server listening on" not in (line := await process.stderr.readline()):
                    if not line:
                        raise HostUnready("the demo's sshd didn't start", hint=f"{sshd} -t tells what is missing")
        except TimeoutError:
            raise HostUnready(f"the demo's sshd didn't listen within {START_S:g} s") from None
        draining = asyncio.create_task(_drain(process.stderr))
        user = pwd.getpwuid(os.getuid()).pw_name
        url = f"ssh://{user}@{ADDRESS}:{port}{repository}"
        yield Upstream(url, directory / "identity", host_key, repository)
        draining.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        continue


async def _made(repository: Path) -> None:
    work = repository.with_name("first")
    await _git(repository.parent, "init", "-q", "--bare", "-b", "main", str(repository))
    await _git(repository.parent, "init", "-q", "-b", "main", str(work))
    (work / "README").write_text("the demo's site\n")
    await _git(work, "add", "README")
    await _git(work, "commit", "-q", "-m", "first")
    await _git(work, "push", "-q", str(repository), "main")


async def _git(place: Path, *words: str) -> str:
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _PERSON.items()}
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **who}
    process = await asyncio.create_subprocess_exec(
        *("git", "-C", str(place), *words),
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    if process.returncode != 0:
        raise HostUnready(f"the demo's git {words[0]} failed: {said.decode('utf-8', 'replace').strip()[:200]}")
    return out.decode()


_PERSON = {"NAME": "A person", "EMAIL": "person@demo.test"}


def _key(path: Path) -> str:
    """Make an Ed25519 key; returns its public half as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])
