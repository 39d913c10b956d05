"""A host's SSH key pair of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.conftest import require


def host_key(directory: Path, name: str = "host_key", kind: str = "ed25519") -> Path:
    """Return a new private key; its public half is beside it."""
    path = directory / name
    ssh_keygen("-q", "-t", kind, "-N", "", "-C", "", "-f", str(path))
    return path


def private_key(path: Path) -> Path:
    """Write a new ed25519 key, its private half alone, without a program."""
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    return path


def ssh_keygen(*words: str, stdin: str = "") -> str:
    """Return what ssh-keygen says on stdout; raises CalledProcessError when it fails."""
    program = require("ssh-keygen", "needs OpenSSH's ssh-keygen (apt-get install openssh-client)")
    return subprocess.run([program, *words], input=stdin, capture_output=True, text=True, check=True).stdout


def public(key: Path) -> str:
    """Return the public half's line."""
    return key.with_name(key.name + ".pub").read_text().strip()
