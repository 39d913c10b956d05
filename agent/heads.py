"""Signing the audit chain's head with the host's SSH key: every so often, when a segment is full, and at the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from pathlib import Path

from agent.asker import LAYER
from agent.errors import AgentUnable
from agent.say import say
from opsexec.audit import AuditEntry, AuditLog
from opsexec.audit_heads.head import (
    NAMESPACE,
    SignedHead,
    as_line,
    heads_path,
    last_head,
    older_path,
    parse_line,
    statement_after,
)
from opsexec.errors import AuditUnavailable, OpsError

LOOK_S = 2.0
"""Seconds between looks at whether the log was rotated, while lines are unsigned."""

SIGN_S = 10.0
DEFAULT_KEY = "/etc/ssh/ssh_host_ed25519_key"
MAX_HEADS_BYTES = 8 << 20


class HeadSigner:
    """Signs heads of one log with `ssh-keygen -Y sign`: the key stays out of this process, and a library out of it."""

    def __init__(self, log: AuditLog, host: str, key: Path, every_s: float) -> None:
        self._log = log
        self._host = host
        self._key = key
        self._every_s = every_s
        self._last: SignedHead | None = None
        self._signed: AuditEntry | None = None
        self._failed = False
        self._doubtful = False
        """Whether a write has failed, so that what the file ends with is known from the file alone."""
        self._one = threading.Lock()

    def open(self) -> str | None:
        """Read what was signed before and cut off half a line; returns what a person must know of it, or None."""
        self._cut_torn()
        self._last = last_head(self._log.path)
        head = self._log.head
        if self._last is None:
            return None
        self._signed = self._last.entry
        if head is None or head.seq < self._last.said.seq:
            ends = "is empty" if head is None else f"ends at line {head.seq}"
            return f"the audit log {ends}, but line {self._last.said.seq} was signed: lines were cut off its end"
        return None

    def _cut_torn(self) -> None:
        try:
            with heads_path(self._log.path).open("r+b") as file:
                data = file.read()
                if data and not data.endswith(b"\n"):
                    file.truncate(data.rfind(b"\n") + 1)
        except FileNotFoundError:
            return

    async def attend(self) -> None:
        """Sign for ever, while there is something new to sign."""
        due = 0.0
        inode = self._inode()
        while True:
            if self._log.head != self._signed:
                before, inode = inode, self._inode()
                if before != inode or time.monotonic() >= due:
                    await self.sign()
                    due = time.monotonic() + self._every_s
            await asyncio.sleep(LOOK_S)

    def _inode(self) -> int:
        try:
            return os.stat(self._log.path).st_ino
        except OSError:
            return 0

    async def sign(self) -> None:
        """Sign the chain as it ends now; what stands in the way is said once, and tried again."""
        head = self._log.head
        if head is None or head == self._signed:
            return
        try:
            await self._log.barrier()  # a signed line that a power cut takes would look cut off by someone
            await asyncio.to_thread(self._sign, head)
        except (OpsError, OSError) as error:
            if not self._failed:
                say(f"the audit's head isn't signed: {error}")
            self._failed = True
            return
        self._failed = False
        self._signed = head

    def _sign(self, head: AuditEntry) -> None:
        with self._one:  # a signing whose task was cancelled goes on in its thread
            if self._doubtful:
                self._cut_torn()
                self._last = last_head(self._log.path)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            statement = statement_after(self._last, self._host, head, now)
            signature = self._sign_text(statement)
            self._doubtful = True
            self._last = self._append(statement, signature)
            self._doubtful = False

    def _sign_text(self, text: str) -> str:
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(self._key)]
        environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": "/bin/false"}
        try:
            done = subprocess.run(
                argv,
                input=text.encode(),
                capture_output=True,
                timeout=SIGN_S,
                env=environment,
                start_new_session=True,  # no terminal to ask for a passphrase at
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AgentUnable(f"ssh-keygen can't sign: {error}", hint="install openssh-client") from error
        if done.returncode != 0 or b"BEGIN SSH SIGNATURE" not in done.stdout:
            said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
            hint = "let the agent's user read it, or name another key in [audit] host_key"
            raise AgentUnable(f"ssh-keygen can't sign with {self._key}: {said}", hint=hint)
        return done.stdout.decode("ascii")

    def _append(self, statement: str, signature: str) -> SignedHead:
        path = heads_path(self._log.path)
        line = as_line(statement, signature)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                if os.write(fd, line) != len(line):
                    raise AuditUnavailable(f"{path} can't be written whole", hint="make room on its disk")
                os.fdatasync(fd)
            except (AuditUnavailable, OSError):  # a line that may be lost is written again, not gone on from
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if size > MAX_HEADS_BYTES:
            os.replace(path, older_path(self._log.path))
        last = parse_line(line[:-1])
        assert last is not None
        return last


def open_signer(log: AuditLog, host: str, key: str | None, every_s: float) -> HeadSigner | None:
    """Return what signs a log's heads; None, and a word about it, where there is no key and none was named.

    Raises AgentUnable when the key that was named can't be read.
    """
    path = Path(key or DEFAULT_KEY)
    if not os.access(path, os.R_OK):
        text = f"{path} can't be read, so the audit's heads are not signed"
        if key is not None:
            raise AgentUnable(text, hint="let the agent's user read it, or name another key in [audit] host_key")
        say(text)
        return None
    signer = HeadSigner(log, host, path, every_s)
    warning = signer.open()
    if warning is not None:
        say(warning)
        said = {"step": {"type": "audit.heads"}, "decision": "deny", "layer": LAYER, "reason": warning}
        log.append({"host": host, "listener": "agent", **said})
    return signer
